"""`edgeloop serve` as a real process: real broker, kill -9, ports in use, clean stops."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from edgeloop_protocol.messages import Ack, Desired, decode
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import Down, device_subscription, parse_down_topic

pytestmark = pytest.mark.e2e
EDGELOOP = Path(sys.executable).parent / "edgeloop"


@dataclass
class Serve:
    """One data directory; `start` and `kill` as often as you like."""

    directory: Path
    http_port: int
    broker: str
    wait_until: Callable[..., None]
    process: subprocess.Popen[bytes] | None = None
    extra: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        return (self.directory / "log.txt").read_text()

    def spawn(self) -> subprocess.Popen[bytes]:
        config = self.directory / "controller.toml"
        config.write_text(
            f'data_dir = "{self.directory / "data"}"\ntick_s = 0.1\n{self.extra}'
            f"[http]\nport = {self.http_port}\n[broker]\n{self.broker}\n"
        )
        with (self.directory / "log.txt").open("ab") as log:
            command = [str(EDGELOOP), "serve", "--config", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        return self.process

    def start(self, status: str = "ok") -> None:
        process = self.spawn()
        self.wait_until(
            lambda: process.poll() is not None or self.health() == status,
            what=f"controller is {status}",
        )
        assert process.poll() is None, self.log

    def health(self) -> str:
        try:
            return str(self.get("/health")["status"])
        except httpx.HTTPError:
            return "away"

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}/v1{path}", trust_env=False).json()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)


@pytest.fixture
def make_serve(
    tmp_path: Path, free_port: Callable[[], int], wait_until: Callable[..., None]
) -> Iterator[Callable[[str], Serve]]:
    made: list[Serve] = []

    def make(broker: str) -> Serve:
        made.append(Serve(tmp_path, free_port(), broker, wait_until))
        return made[-1]

    yield make
    for serve in made:
        if serve.process is not None and serve.process.poll() is None:
            serve.kill()


@pytest.fixture
def serve(mosquitto: Any, make_serve: Callable[[str], Serve]) -> Serve:
    return make_serve(f"port = {mosquitto.port}")


@dataclass
class Link:
    """A device's end of the broker; remembers what it was told."""

    device_id: str
    port: int
    up: threading.Event = field(default_factory=threading.Event)
    acks: list[Ack] = field(default_factory=list)
    desired: list[Desired] = field(default_factory=list)
    on_ack: Callable[[Ack], None] | None = None
    on_desired: Callable[[Desired], None] | None = None

    def __post_init__(self) -> None:
        address = BrokerAddress("127.0.0.1", self.port)
        subscription = (device_subscription(self.device_id),)
        self.broker = PahoBroker(address, self.device_id, subscription)

    def __enter__(self) -> "Link":
        self.broker.start(self)
        assert self.up.wait(10)
        return self

    def __exit__(self, *_error: object) -> None:
        self.broker.stop()

    def connected(self) -> None:
        self.up.set()

    def disconnected(self, _reason: str) -> None:
        self.up.clear()

    def message(self, topic: str, payload: bytes) -> None:
        if parse_down_topic(topic).kind is Down.ACK:
            self.acks.append(decode(Ack, payload))
            if self.on_ack is not None:
                self.on_ack(self.acks[-1])
        else:
            self.desired.append(decode(Desired, payload))
            if self.on_desired is not None:
                self.on_desired(self.desired[-1])


def _roll_out(serve: Serve, model: bytes, draft_toml: str) -> None:
    files = {"model": model, "manifest": draft_toml.encode()}
    path = f"{serve.url}/v1/models/tiny/versions/1"
    assert httpx.post(path, files=files, trust_env=False).status_code == 201
    request = {"name": "tiny", "version": "1", "terms": {"soak_s": 0, "min_compared": 0}}
    started = httpx.post(f"{serve.url}/v1/rollouts", json=request, trust_env=False)
    assert started.status_code == 201, started.text


def test_hello_is_answered_with_what_is_desired(
    serve: Serve,
    mosquitto: Any,
    make_device: Any,
    tiny_model: Any,
    draft_toml: str,
    wait_until: Any,
) -> None:
    serve.start()
    device = make_device("d1")
    with Link("d1", mosquitto.port) as link:
        link.broker.publish(*device.hello())
        wait_until(lambda: len(serve.get("/devices")["items"]) == 1)
        _roll_out(serve, tiny_model(), draft_toml)
        wait_until(lambda: link.desired)
        link.broker.publish(*device.obeys(link.desired[-1]))
        wait_until(lambda: serve.get("/rollouts/1")["status"] == "done")
    assert serve.stop() == 0


def test_what_was_reported_to_nobody_is_asked_for(
    serve: Serve,
    mosquitto: Any,
    make_device: Any,
    tiny_model: Any,
    draft_toml: str,
    wait_until: Any,
) -> None:
    """The device says each thing once, and stays connected; the controller was away. EL-STATE-5."""
    serve.start()
    device = make_device("d1")
    with Link("d1", mosquitto.port) as link:
        link.broker.publish(*device.hello())
        wait_until(lambda: len(serve.get("/devices")["items"]) == 1)
        _roll_out(serve, tiny_model(), draft_toml)
        wait_until(lambda: link.desired)
        # It accepts the offer, and is in probation: nothing lags behind at the controller.
        device.revision = link.desired[-1].revision
        link.broker.publish(*device.reported())
        wait_until(lambda: serve.get("/devices/d1")["revision_seen"] == device.revision)
        serve.kill()
        device.obeys(link.desired[-1])  # it commits, and what it reports reaches nobody
        link.on_desired = lambda _: link.broker.publish(*device.reported())
        serve.start()
        wait_until(lambda: serve.get("/rollouts/1")["status"] == "done")
        assert link.desired[-1] == link.desired[0]
    assert serve.stop() == 0


def test_nothing_acknowledged_is_lost_at_a_kill(
    serve: Serve, mosquitto: Any, telemetry: Any, wait_until: Any, tmp_path: Path
) -> None:
    epoch, total, size = "a" * 16, 6000, 20
    serve.extra = "[limits]\nbatch_max_messages = 5\n"
    serve.start()

    def kill_once(_ack: Ack) -> None:  # at the first acknowledgement: in the middle of it
        link.on_ack = None
        serve.kill()

    with Link("d1", mosquitto.port, on_ack=kill_once) as link:

        def acknowledged() -> int:
            return max((ack.through for ack in link.acks), default=0)

        def send_rest() -> None:
            for first in range(acknowledged() + 1, total + 1, size):
                count = min(size, total - first + 1)
                link.broker.publish(*telemetry("d1", epoch, first, count))

        sender = threading.Thread(target=send_rest)
        sender.start()
        sender.join()
        wait_until(lambda: serve.process and serve.process.poll() is not None)
        after_kill = acknowledged()
        assert 0 < after_kill < total
        stored = _sequences(tmp_path)
        assert stored[:after_kill] == list(range(1, after_kill + 1))
        serve.start()
        while acknowledged() < total:  # as an agent does: from what is acknowledged on
            before = acknowledged()
            send_rest()
            wait_until(lambda floor=before: acknowledged() > floor, what="an acknowledgement")
        assert _sequences(tmp_path) == list(range(1, total + 1))
    assert serve.get("/health")["ingest"]["lost"] == 0
    serve.stop()


def _sequences(directory: Path) -> list[int]:
    path = directory / "data" / "edgeloop.sqlite"
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT sequence FROM events WHERE device_id = 'd1' ORDER BY sequence"
        )
        return [row[0] for row in rows]


def test_without_a_broker_it_serves_and_keeps_trying(
    serve: Serve, mosquitto: Any, wait_until: Any
) -> None:
    mosquitto.stop()
    serve.start("degraded")
    assert "no broker answers" in serve.get("/health")["broker"]["reason"]
    mosquitto.start()
    wait_until(lambda: serve.health() == "ok")
    mosquitto.stop()
    wait_until(lambda: serve.health() == "degraded")
    mosquitto.start()
    wait_until(lambda: serve.health() == "ok")
    assert serve.stop() == 0


def test_the_embedded_broker_dies_with_a_killed_controller(
    make_serve: Callable[[str], Serve], free_port: Any, wait_until: Any, make_device: Any
) -> None:
    port = free_port()
    serve = make_serve(f"embedded = true\nport = {port}")
    serve.start()
    assert serve.process is not None
    children = psutil.Process(serve.process.pid).children(recursive=True)
    assert children
    with Link("d1", port) as link:
        link.broker.publish(*make_device("d1").hello())
        wait_until(lambda: serve.get("/devices")["items"])
    serve.kill()
    wait_until(lambda: not any(child.is_running() for child in children))
    serve.start()
    assert serve.stop() == 0
    wait_until(lambda: not _accepts(port))


def test_the_embedded_broker_is_started_again(
    make_serve: Callable[[str], Serve], free_port: Any, wait_until: Any, make_device: Any
) -> None:
    port = free_port()
    serve = make_serve(f"embedded = true\nport = {port}")
    serve.start()
    assert serve.process is not None
    (child,) = psutil.Process(serve.process.pid).children()
    child.kill()
    wait_until(lambda: serve.get("/health")["broker"]["restarts"] == 1)
    wait_until(lambda: serve.health() == "ok")
    with Link("d1", port) as link:
        link.broker.publish(*make_device("d1").hello())
        wait_until(lambda: serve.get("/devices")["items"])
    assert serve.stop() == 0
    wait_until(lambda: not _accepts(port))


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_in_use_is_a_clear_error(
    make_serve: Callable[[str], Serve], free_port: Any, mosquitto: Any
) -> None:
    serve = make_serve(f"port = {mosquitto.port}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", serve.http_port))
        taken.listen()
        assert serve.spawn().wait(timeout=30) == 7
    assert f"cannot listen on 127.0.0.1:{serve.http_port}" in serve.log
    serve.broker = f"embedded = true\nport = {mosquitto.port}"
    assert serve.spawn().wait(timeout=30) == 7
    assert f"embedded broker cannot listen on 127.0.0.1:{mosquitto.port}" in serve.log
    assert "Traceback" not in serve.log


def test_one_controller_a_data_directory(serve: Serve) -> None:
    serve.start()
    first, serve.http_port = serve.process, serve.http_port + 1
    assert serve.spawn().wait(timeout=30) == 7
    assert "another controller uses" in serve.log
    serve.process = first
    assert serve.stop() == 0


def test_a_wrong_configuration_names_key_and_mend(serve: Serve) -> None:
    serve.extra = "tock_s = 1\n"
    assert serve.spawn().wait(timeout=30) == 2
    assert "tock_s: unknown key; known here: access, broker" in re.sub(r"\s+", " ", serve.log)


def test_ctrl_c_stops_it(serve: Serve) -> None:
    serve.start()
    assert serve.process is not None
    os.kill(serve.process.pid, signal.SIGINT)
    assert serve.process.wait(timeout=20) == 0
    assert "Traceback" not in serve.log


def test_the_first_token_is_made_beside_a_running_controller(serve: Any, tmp_path: Path) -> None:
    serve.extra = "[access]\nrequire = true\n"
    serve.start()
    assert "edgeloop token create" in serve.log, "it says how to come in"
    config = serve.directory / "controller.toml"
    outside = {k: v for k, v in os.environ.items() if not k.startswith("EDGELOOP_")}

    def edgeloop(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(EDGELOOP), "--url", serve.url, *arguments]
        return subprocess.run(
            command, env=outside | variables, capture_output=True, text=True, check=False
        )

    assert edgeloop("device", "list").returncode == 10
    made = edgeloop("token", "create", "root", "--role", "admin", "--config", str(config))
    assert made.returncode == 0, made.stderr
    token_file = tmp_path / "token"
    token_file.write_text(made.stdout)
    assert made.stdout.strip() not in made.stderr
    open_to_all = edgeloop("whoami", EDGELOOP_TOKEN_FILE=str(token_file))
    assert open_to_all.returncode == 2
    assert f"chmod 600 {token_file}" in open_to_all.stderr
    token_file.chmod(0o600)
    shown = edgeloop("whoami", EDGELOOP_TOKEN_FILE=str(token_file))
    assert shown.stdout == "root: admin\n", shown.stderr
    entry = edgeloop("audit", EDGELOOP_TOKEN_FILE=str(token_file)).stdout
    assert "on-site:" in entry
    assert "token:root" in entry
    assert edgeloop("token", "revoke", "root", "--config", str(config)).returncode == 0
    assert edgeloop("whoami", EDGELOOP_TOKEN_FILE=str(token_file)).returncode == 10
    files = [path for path in (tmp_path / "data").glob("*") if path.is_file()]
    assert files
    written = serve.log + "".join(path.read_text("latin-1") for path in files)
    assert made.stdout.strip() not in written
