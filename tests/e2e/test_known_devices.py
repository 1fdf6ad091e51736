"""Known devices with everything real: `edgeloop serve` over TLS, a broker that `edgeloop broker
config` set up, a device that enrolled; and how fast a revoked one is out."""

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_protocol.config import load_config
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
CUT_OFF_WITHIN_S = 5.0


@dataclass
class Listener:
    """What a device's connection hears; `up` is whether it stands."""

    up: bool = False
    ends: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def connected(self) -> None:
        self.up = True
        self.begins.append(time.monotonic())

    def disconnected(self, reason: str) -> None:
        if self.up:
            self.ends.append(time.monotonic())
        self.up = False
        self.reasons.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        self.heard.append(topic)


@dataclass
class Site:
    """A controller, a broker, and devices below one directory."""

    directory: Path
    http_port: int
    broker_port: int
    kind: str
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    listeners: list[PahoBroker] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.http_port}"

    @property
    def toml(self) -> Path:
        return self.directory / "controller.toml"

    @property
    def authority(self) -> Path:
        return self.directory / "data" / "ca" / "ca.pem"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.directory,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def spawn(self, *command: str, log: str) -> None:
        with (self.directory / log).open("ab") as file:
            made = subprocess.Popen(command, stdout=file, stderr=file, cwd=self.directory)
        self.processes.append(made)

    def context(self, device_id: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if device_id is not None:
            context.load_cert_chain(self.identity(device_id) / "device.pem")
        return context

    def identity(self, device_id: str) -> Path:
        return self.directory / device_id / "identity"

    def api(self, device_id: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/v1", verify=self.context(device_id), trust_env=False
        )

    def enroll(self, device_id: str) -> Path:
        """With a token that only its file knows; the configuration of its agent."""
        with self.api() as api:
            made = api.post("/enrolment-tokens", json={"device_id": device_id}).json()
            fingerprint = api.get("/enrolments/authority").json()["fingerprint"]
        token = self.directory / f"{device_id}.token"
        token.touch(mode=0o600)
        token.write_text(made["token"])
        path = self.directory / f"{device_id}.toml"
        path.write_text(
            f'device_id = "{device_id}"\nstate_dir = "{self.directory}/{device_id}"\n'
            f'controller_url = "{self.url}"\n[identity]\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {self.broker_port}\n'
            f'[slots.main.source]\nkind = "socket"\npath = "{self.directory}/s.sock"\n'
        )
        command = ["edgeloop-agent", "enroll", "--config", str(path), "--token-file", str(token)]
        self.run(*command, "--ca-fingerprint", fingerprint)
        return path

    def connect(self, device_id: str) -> Listener:
        """As its agent does."""
        config = load_config(AgentConfig, self.directory / f"{device_id}.toml", {})
        address = BrokerAddress("127.0.0.1", self.broker_port, tls=config.broker_tls)
        listener = Listener()
        client = PahoBroker(address, device_id, (f"edgeloop/v1/{device_id}/down/+",))
        client.start(listener)
        self.listeners.append(client)
        return listener

    def close(self) -> None:
        for client in self.listeners:
            client.stop()
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def make_site(
    tmp_path: Path, free_port: Callable[[], int], wait_until: Any, monkeypatch: Any
) -> Iterator[Callable[[str], Site]]:
    # Reconnects are to be tried at once: what keeps a device out must not be its patience.
    monkeypatch.setattr("edgeloop_protocol.mqtt.backoff_s", lambda *_: 0.05)
    sites = []

    def make(kind: str) -> Site:
        if kind == "mosquitto" and MOSQUITTO is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        site = Site(tmp_path, free_port(), free_port(), kind)
        sites.append(site)
        head = 'data_dir = "data"\n'
        http = f"[http]\nport = {site.http_port}\n[http.tls]\n"
        site.toml.write_text(head + http)
        more = ["--client-port", str(free_port())] if kind == "nats" else []
        told = site.run(
            *(
                "edgeloop",
                "broker",
                "config",
                kind,
                "--dir",
                "broker",
                "--config",
                "controller.toml",
            ),
            *("--port", str(site.broker_port), "--address", "127.0.0.1", "--name", "127.0.0.1"),
            *more,
        )
        site.toml.write_text(head + http + told)
        program = str(MOSQUITTO) if kind == "mosquitto" else str(BIN / "nats-server")
        site.spawn(program, "-c", str(tmp_path / "broker" / f"{kind}.conf"), log="broker.log")
        site.spawn(str(BIN / "edgeloop"), "serve", "--config", "controller.toml", log="serve.log")

        def healthy() -> bool:
            assert all(one.poll() is None for one in site.processes), (
                tmp_path / "serve.log"
            ).read_text()
            try:
                with site.api() as api:
                    return api.get("/health").json()["status"] == "ok"
            except (httpx.HTTPError, OSError):
                return False

        wait_until(healthy, what="the controller serves and is connected to its broker")
        return site

    yield make
    for site in sites:
        site.close()


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_a_revoked_device_is_cut_off_within_five_seconds(
    make_site: Any, kind: str, wait_until: Any, record_property: Any
) -> None:
    site = make_site(kind)
    site.enroll("dev1")
    site.enroll("dev2")
    wait_until(lambda: _reconciled(site), what="NATS was told of the devices")
    thief, other = site.connect("dev1"), site.connect("dev2")
    wait_until(lambda: thief.up and other.up)
    nothing = "/artifacts/" + "0" * 64
    with site.api("dev1") as held, site.api("dev2") as others, site.api() as people:
        assert held.get(nothing).status_code == 404
        assert people.get(nothing).status_code == 401
        began = time.monotonic()
        answer = people.post("/devices/dev1/revocation", json={"reason": "stolen"})
        assert answer.status_code == 200
        assert held.get(nothing).status_code == 403  # at once, on the connection that stands
        assert held.get("/devices").status_code == 403
        wait_until(lambda: not thief.up, timeout_s=CUT_OFF_WITHIN_S)
        took_s = thief.ends[-1] - began
        wait_until(lambda: not people.get("/devices/dev1/identity").json()["cut_off_due"])
        said_s = time.monotonic() - began
        assert said_s < CUT_OFF_WITHIN_S
        tries = len(thief.reasons)
        wait_until(lambda: len(thief.reasons) > tries + 5, what="it tries to come back")
        assert len(thief.begins) == 1, "and is never let in"
        assert others.get(nothing).status_code == 404
    assert len(other.ends) == 0, "the others noticed nothing"
    print(f"{kind}: cut off {took_s:.2f} s after the request, known to be after {said_s:.2f} s")
    # An operator lets it in again, and it is.
    shutil.rmtree(site.identity("dev1"))
    site.enroll("dev1")
    back = site.connect("dev1")
    wait_until(lambda: back.up)


def _reconciled(site: Site) -> bool:
    if site.kind != "nats":
        return True
    return "CN=dev2" in (site.directory / "broker" / "users.conf").read_text()
