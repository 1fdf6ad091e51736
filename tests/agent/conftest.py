"""A scripted controller and real agents, for the agent's tests."""

import http.server
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_protocol.messages import (
    Ack,
    Challenger,
    Desired,
    Hello,
    Probation,
    Record,
    Reported,
    ShadowBudget,
    SlotDesired,
    SlotReported,
    TelemetryBatch,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import EVERY_DEVICE_UP, Down, Up, down_topic, parse_up_topic

QUICK = Probation(min_s=0.3, min_examples=3, max_s=20.0, max_latency_ratio=1e4)
"""Speed is judged where it is asked about: on a busy machine a p95 of few examples is noise."""


class ArtifactServer:
    """A stdlib HTTP server of `/v1/artifacts/{digest}` with Range, and faults on demand."""

    def __init__(self) -> None:
        self.artifacts: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after_bytes: int | None = None
        self.ignore_range = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        digest = request.path.rpartition("/")[2]
        asked = request.headers.get("Range")
        self.requests.append((digest, asked))
        content = self.artifacts.get(digest)
        if content is None:
            request.send_error(404)
            return
        start = 0
        if asked and not self.ignore_range:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        body = content[start:]
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.cut_after_bytes is not None:
            body, self.cut_after_bytes = body[: self.cut_after_bytes], None
            request.close_connection = True
        request.wfile.write(body)

    def publish(self, package: Any) -> None:
        self.artifacts.update(package.artifacts)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def artifact_server() -> Iterator[ArtifactServer]:
    server = ArtifactServer()
    yield server
    server.close()


@dataclass
class ScriptedController:
    """Ingests like the real one (by cursor, acknowledging after), and offers what it is told to."""

    port: int
    records: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    hellos: list[Hello] = field(default_factory=list)
    slots: dict[str, tuple[SlotReported, ...]] = field(default_factory=dict)
    history: list[SlotReported] = field(default_factory=list)
    desired: Desired | None = None
    lost: int = 0
    acknowledging: bool = True
    device_id: str = "dev1"

    def __post_init__(self) -> None:
        self.broker = PahoBroker(
            BrokerAddress("127.0.0.1", self.port), "controller", (EVERY_DEVICE_UP,)
        )
        self.is_connected = threading.Event()
        self.broker.start(self)

    def connected(self) -> None:
        self.is_connected.set()

    def disconnected(self, reason: str) -> None:
        self.is_connected.clear()

    def message(self, topic: str, payload: bytes) -> None:
        device_id, kind = parse_up_topic(topic)
        if kind is Up.TELEMETRY:
            self._ingest(device_id, decode(TelemetryBatch, payload))
        elif kind is Up.HELLO:
            hello = decode(Hello, payload)
            self.hellos.append(hello)
            self._saw(device_id, hello.slots)
            if self.desired is not None and hello.revision < self.desired.revision:
                self._say(Down.DESIRED, encode(self.desired))
        elif kind is Up.REPORTED:
            self._saw(device_id, decode(Reported, payload).slots)

    def _saw(self, device_id: str, slots: tuple[SlotReported, ...]) -> None:
        self.slots[device_id] = slots
        self.history += slots

    def _ingest(self, device_id: str, batch: TelemetryBatch) -> None:
        kept = self.records.setdefault((device_id, batch.epoch), [])
        through = kept[-1].sequence if kept else 0
        if batch.base > through + 1:
            self.lost += batch.base - through - 1
            through = batch.base - 1
        kept += [record for record in batch.records if record.sequence > through]
        if self.acknowledging:
            self._say(Down.ACK, encode(Ack(epoch=batch.epoch, through=kept[-1].sequence)))

    def _say(self, kind: Down, payload: bytes) -> None:
        self.broker.publish(down_topic(self.device_id, kind), payload)

    def raw(self, kind: Down, payload: bytes) -> None:
        self._say(kind, payload)

    def offer(
        self,
        package: Any,
        probation: Probation = QUICK,
        challenger: Any = None,
        budget: ShadowBudget = ShadowBudget(),  # noqa: B008 - frozen
    ) -> None:
        revision = (self.desired.revision if self.desired else 0) + 1
        offer = package.offer if package else None
        challenging = Challenger(offer=challenger.offer, budget=budget) if challenger else None
        slot = SlotDesired(slot="main", offer=offer, probation=probation, challenger=challenging)
        self.desired = Desired(revision=revision, slots=(slot,))
        self._say(Down.DESIRED, encode(self.desired))

    @property
    def slot(self) -> SlotReported | None:
        slots = self.slots.get(self.device_id)
        return slots[0] if slots else None

    def runs(self, package: Any) -> bool:
        slot = self.slot
        return bool(
            slot
            and slot.champion
            and slot.champion.manifest_digest == package.manifest.digest()
            and slot.candidate is None
            and slot.runner_alive
        )

    def refused(self, package: Any) -> str:
        refused = self.slot.refused if self.slot else None
        if refused and refused.version.manifest_digest == package.manifest.digest():
            return refused.cause
        return ""

    def bodies(self, kind: str) -> list[Any]:
        return [r.body for kept in self.records.values() for r in kept if r.body.kind == kind]


@pytest.fixture
def controller(mosquitto: Any) -> Iterator[ScriptedController]:
    scripted = ScriptedController(mosquitto.port)
    assert scripted.is_connected.wait(10)
    yield scripted
    scripted.broker.stop()


class AgentProcess:
    """A real `edgeloop-agent run` over a replayed file."""

    def __init__(self, directory: Path, broker_port: int, controller_url: str) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.config_path = directory / "agent.toml"
        self.answers_path = directory / "answers.jsonl"
        values = np.random.default_rng(7).normal(size=(200, 3))
        np.savetxt(directory / "stream.csv", values, delimiter=",", header="a,b,c", comments="")
        self.config_path.write_text(
            f'device_id = "dev1"\nstate_dir = "{self.state_dir}"\n'
            f'controller_url = "{controller_url}"\nlabels = {{ site = "lab" }}\n'
            f"[broker]\nport = {broker_port}\n"
            "[telemetry]\nwindow_s = 0.5\nsketch_every = 2\nsample_fraction = 0.2\n"
            f'[slots.main.source]\nkind = "replay"\npath = "{directory}/stream.csv"\n'
            'rate_hz = 40\n[slots.main.sink]\nkind = "jsonl"\n'
            f'path = "{self.answers_path}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = directory / "agent.log"

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeloop_agent.cli", "run", "--config", self.config_path],
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state_dir / "status.json").read_text()))
        except (OSError, ValueError):
            return {}

    def runner_pids(self) -> list[int]:
        """Of live runner processes started by this agent."""
        assert self.process
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"--parent\0{self.process.pid}\0".encode() in _read(path)
        ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def agent(
    tmp_path: Path, mosquitto: Any, artifact_server: ArtifactServer
) -> Iterator[AgentProcess]:
    process = AgentProcess(tmp_path, mosquitto.port, artifact_server.url)
    yield process
    end(process)


@dataclass
class Bench:
    """An agent that runs a good version, for all tests of a module."""

    agent: AgentProcess
    controller: ScriptedController
    server: ArtifactServer
    good: Any


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, lasting_mosquitto: Any, make_package: Any
) -> Iterator[Bench]:
    server, controller = ArtifactServer(), ScriptedController(lasting_mosquitto.port)
    agent = AgentProcess(tmp_path_factory.mktemp("agent"), lasting_mosquitto.port, server.url)
    assert controller.is_connected.wait(10)
    good = make_package("1")
    server.publish(good)
    agent.start()
    controller.offer(good)
    deadline = time.monotonic() + 30
    while not controller.runs(good) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert controller.runs(good)
    yield Bench(agent, controller, server, good)
    end(agent)
    controller.broker.stop()
    server.close()


def end(process: AgentProcess) -> None:
    """Stop the agent, show its log, and see that no runner is left."""
    if process.process and process.process.poll() is None:
        process.stop()
    if process.log_path.exists():
        print(process.log_path.read_text()[-8000:])
    deadline = time.monotonic() + 5
    while process.process and process.runner_pids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.process or not process.runner_pids(), "a runner outlived its agent"
