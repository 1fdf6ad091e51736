"""Known devices with everything real: `edgeloop serve` over TLS, a broker that `edgeloop broker
config` set up, a device that enrolled; and how fast a revoked one is out."""

import contextlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from device_keys import DeviceKey

from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls_config import TlsConfig

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
CUT_OFF_WITHIN_S = 5.0
START_WITHIN_S = 30.0


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

    def enroll(self, device_id: str) -> None:
        """As `edgeloop-agent enroll` does, which tests/e2e/test_enrolment.py is about."""
        key, directory = DeviceKey(device_id), self.identity(device_id)
        with self.api() as api:
            made = api.post("/enrolment-tokens", json={"device_id": device_id}).json()
            asked = {"csr": key.csr, "token": made["token"]}
            answer = api.post("/enrolments", json=asked).json()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "device.pem").write_bytes(key.key_pem + answer["certificate"].encode())
        (directory / "ca.pem").write_text(answer["authority"])

    def connect(self, device_id: str) -> Listener:
        """As its agent does."""
        held = self.identity(device_id)
        tls = TlsConfig(ca_path=held / "ca.pem", certificate_path=held / "device.pem")
        address = BrokerAddress("127.0.0.1", self.broker_port, tls=tls)
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for both tests: it takes seconds to start."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    directory = tmp_path_factory.mktemp("site")
    site = Site(directory, _free_port(), _free_port())
    head = f'data_dir = "data"\n[http]\nport = {site.http_port}\n[http.tls]\n'
    site.toml.write_text(head)
    told = site.run(
        *("edgeloop", "broker", "config", "mosquitto", "--dir", "broker"),
        *("--config", "controller.toml", "--port", str(site.broker_port)),
        *("--address", "127.0.0.1", "--name", "127.0.0.1"),
    )
    site.toml.write_text(head + told)
    site.spawn(MOSQUITTO, "-c", str(directory / "broker" / "mosquitto.conf"), log="broker.log")
    site.spawn(str(BIN / "edgeloop"), "serve", "--config", "controller.toml", log="serve.log")

    deadline = time.monotonic() + START_WITHIN_S

    def healthy() -> bool:
        assert time.monotonic() < deadline, (directory / "serve.log").read_text()
        for process in site.processes:
            assert process.poll() is None, (directory / "serve.log").read_text()
        try:
            with site.api() as api:
                return bool(api.get("/health").json()["status"] == "ok")
        except (httpx.HTTPError, OSError):
            return False

    while not healthy():
        time.sleep(0.05)
    yield site
    site.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_revoked_device_is_cut_off_within_five_seconds(
    site: Site, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All from one request on: HTTP at once, MQTT by the controller's own look at what is due."""
    # Reconnects are to be tried at once: what keeps a device out must not be its patience.
    monkeypatch.setattr("edgeloop_protocol.mqtt.backoff_s", lambda *_: 0.05)
    site.enroll("dev1")
    site.enroll("dev2")
    thief, other = site.connect("dev1"), site.connect("dev2")
    wait_until(lambda: thief.up and other.up)
    nothing = "/artifacts/" + "0" * 64
    with site.api("dev1") as held, site.api("dev2") as others, site.api() as people:
        assert held.get(nothing).status_code == 404
        assert people.get(nothing).status_code == 401
        began = time.monotonic()
        answer = people.post("/devices/dev1/revocation", json={"reason": "stolen"})
        assert answer.status_code == 200
        assert held.get(nothing).status_code == 403  # on the connection that stands
        wait_until(lambda: not thief.up, timeout_s=CUT_OFF_WITHIN_S)
        wait_until(lambda: not people.get("/devices/dev1/identity").json()["cut_off_due"])
        assert time.monotonic() - began < CUT_OFF_WITHIN_S
        tries = len(thief.reasons)
        wait_until(lambda: len(thief.reasons) > tries + 5, what="it tries to come back")
        assert len(thief.begins) == 1, "and is never let in"
        assert others.get(nothing).status_code == 404
    assert len(other.ends) == 0, "the others noticed nothing"


def test_secrets_are_for_their_owner_and_nowhere_else(site: Site) -> None:
    """In the whole of a site: no key or token in a file that others can read, in a log, in a
    database, or in any program's arguments."""
    with site.api() as api:
        token = api.post("/enrolment-tokens", json={}).json()["token"]
        key = DeviceKey("dev3")
        refused = {"csr": "no csr", "token": token}
        assert api.post("/enrolments", json=refused).status_code == 422
        assert api.post("/enrolments", json={"csr": key.csr, "token": token}).status_code == 201
        api.post("/enrolments", json={"csr": key.csr, "token": "edgeloop-enrol-wrong"})
    owners_alone, found = stat.S_IRWXG | stat.S_IRWXO, 0
    for path in site.directory.rglob("*"):
        if not path.is_file() or path.parent.name == "identity":
            continue  # what the tests themselves wrote as devices
        content = path.read_bytes()
        assert token.encode() not in content, path
        if b"PRIVATE KEY" in content:
            found += 1
            assert path.stat().st_mode & owners_alone == 0, path
    assert found == 4  # the authority's, the listener's, the controller's own, the broker's
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert token.encode() not in arguments.read_bytes(), arguments
    for name in ("data/ca", "broker"):
        assert (site.directory / name).stat().st_mode & owners_alone == 0, name
