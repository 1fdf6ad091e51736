"""A revoked device is out of a real broker within five seconds, its live session included."""

import getpass
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from broker_matrix import MOSQUITTO, NATS, Started
from device_keys import DeviceKey

from edgeloop_controller.broker_files import writing
from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.config import CaConfig, EnrolmentConfig
from edgeloop_controller.config import BrokerAccessConfig
from edgeloop_controller.services.broker_access import BrokerAccess
from edgeloop_controller.services.enrolment import Enrolment
from edgeloop_controller.store import identities
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Event
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls_config import TlsConfig

CUT_OFF_WITHIN_S = 5.0
HOST = "127.0.0.1"


@dataclass
class Listener:
    up: bool = False
    begins: int = 0
    failures: list[str] = field(default_factory=list)

    def connected(self) -> None:
        self.up = True
        self.begins += 1

    def disconnected(self, reason: str) -> None:
        self.up = False
        self.failures.append(reason)

    def message(self, topic: str, payload: bytes) -> None: ...


class Site:
    """A real broker, and the controller's services that tell it who may connect."""

    def __init__(self, kind: str, directory: Path, port: int, other_port: int, wait: Any) -> None:
        self.directory, self.port, self.kind = directory, port, kind
        self.wait_until = wait
        clock, broker = SystemClock(), directory / "broker"
        self.database = Database(f"sqlite:///{directory / 'db.sqlite'}")
        self.authority = Authority(directory / "ca", CaConfig(), clock.wall())
        if kind == "mosquitto":
            user, now = getpass.getuser(), clock.wall()
            writing.write_mosquitto(broker, self.authority, [], [HOST], port, HOST, user, now)
        else:
            where = (port, HOST, other_port)
            writing.write_nats(broker, self.authority, [], [HOST], *where, clock.wall())
        program = MOSQUITTO if kind == "mosquitto" else NATS
        assert program
        command = [program, "-c", str(broker / f"{kind}.conf")]
        self.broker = Started(command, directory / "log", port, wait)
        (directory / "trusted.pem").write_text(self.authority.trusted_pem)
        self.access = BrokerAccess(
            self.database,
            lambda: self.authority,
            BrokerAccessConfig(
                kind=kind,  # type: ignore[arg-type]  # one of two
                directory=broker,
                reload_command=("pkill", "-HUP", "-F", str(broker / f"{kind}.pid")),
            ),
            BrokerAddress(HOST, port),
            directory,
            clock,
        )
        self.enrolment = Enrolment(
            self.database,
            lambda: self.authority,
            EnrolmentConfig(),
            clock,
            self.access.changed,
        )
        self.clients: list[PahoBroker] = []

    def enrol(self, device_id: str) -> Path:
        """Its key and certificate."""
        key, token = DeviceKey(device_id), self.enrolment.make_token(device_id, {}, 60.0).secret
        issued = self.enrolment.enrol(key.csr, token, "")
        assert issued is not None
        path = self.directory / f"{device_id}-{issued.serial}.pem"
        path.write_bytes(key.key_pem + issued.chain_pem.encode())
        self.access.look()
        return path

    def connect(self, device_id: str, identity: Path) -> Listener:
        tls = TlsConfig(ca_path=self.directory / "trusted.pem", certificate_path=identity)
        topics = (f"edgeloop/v1/{device_id}/down/+",)
        client = PahoBroker(BrokerAddress(HOST, self.port, tls=tls), device_id, topics)
        listener = Listener()
        client.start(listener)
        self.clients.append(client)
        return listener

    def is_due(self, device_id: str) -> bool:
        with self.database.reading() as session:
            return identities.require_identity(session, device_id).cut_off_due

    def events(self) -> list[str]:
        with self.database.reading() as session:
            return [event.kind for event in session.query(Event).order_by(Event.id)]

    def close(self) -> None:
        for client in self.clients:
            client.stop()
        self.broker.end()
        self.database.close()


@pytest.fixture
def make_site(
    tmp_path: Path, free_port: Callable[[], int], wait_until: Any, monkeypatch: Any
) -> Iterator[Callable[[str], Site]]:
    # A device comes back at once: what keeps it out must not be its patience.
    monkeypatch.setattr("edgeloop_protocol.mqtt.backoff_s", lambda *_: 0.02)
    sites: list[Site] = []

    def make(kind: str) -> Site:
        if kind == "mosquitto" and MOSQUITTO is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        sites.append(Site(kind, tmp_path, free_port(), free_port(), wait_until))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_a_revoked_device_is_out_and_stays_out(
    make_site: Callable[[str], Site], kind: str, wait_until: Any
) -> None:
    site = make_site(kind)
    identity = site.enrol("dev1")
    thief, other = site.connect("dev1", identity), site.connect("dev2", site.enrol("dev2"))
    wait_until(lambda: thief.up and other.up)
    began = time.monotonic()
    site.enrolment.revoke("dev1", "stolen")
    site.access.look()
    wait_until(lambda: not thief.up, timeout_s=CUT_OFF_WITHIN_S)
    assert time.monotonic() - began < CUT_OFF_WITHIN_S
    assert not site.is_due("dev1")
    tries = len(thief.failures)
    wait_until(lambda: len(thief.failures) > tries + 5, what="it tries to come back")
    assert thief.begins == 1
    assert (other.begins, other.failures) == (1, []), "the others noticed nothing"
    again = site.connect("dev1", site.enrol("dev1"))
    wait_until(lambda: again.up, what="an operator let it in again")
    assert thief.begins == 1


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_a_broker_that_cannot_be_told_is_told_later(
    make_site: Callable[[str], Site], kind: str, wait_until: Any
) -> None:
    site = make_site(kind)
    thief = site.connect("dev1", site.enrol("dev1"))
    wait_until(lambda: thief.up)
    command = site.access._config.reload_command
    site.access._config = site.access._config.model_copy(update={"reload_command": ("false",)})
    site.enrolment.revoke("dev1", "stolen")
    for _ in range(2):
        site.access.look()
    assert site.is_due("dev1")
    assert site.events().count("device.cut_off_failed") == 1
    site.access._config = site.access._config.model_copy(update={"reload_command": command})
    site.access.look()
    wait_until(lambda: not thief.up)
    assert not site.is_due("dev1")
    assert site.events()[-1] == "device.cut_off"


def test_a_list_that_mosquitto_did_not_read_is_noticed(
    make_site: Callable[[str], Site], wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary: a reload_command that does nothing ends well, and proves nothing."""
    monkeypatch.setattr("edgeloop_controller.services.broker_access.IN_FORCE_WITHIN_S", 0.3)
    site = make_site("mosquitto")
    thief = site.connect("dev1", site.enrol("dev1"))
    wait_until(lambda: thief.up)
    site.access._config = site.access._config.model_copy(update={"reload_command": ("true",)})
    site.enrolment.revoke("dev1", "stolen")
    site.access.look()
    assert site.is_due("dev1")
    assert thief.up


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_an_older_key_is_out_when_the_newer_one_is_in_use(
    make_site: Callable[[str], Site], kind: str, wait_until: Any
) -> None:
    site = make_site(kind)
    old = site.enrol("dev1")
    thief = site.connect("dev1", old)
    wait_until(lambda: thief.up)
    new = site.enrol("dev1")  # an operator's token: its key takes the place of the other
    wait_until(lambda: not thief.up)
    device = site.connect("dev1", new)
    wait_until(lambda: device.up)
    tries = len(thief.failures)
    wait_until(lambda: len(thief.failures) > tries + 5)
    assert (thief.begins, device.begins) == (1, 1)


@pytest.mark.skipif("'EDGELOOP_FULL_MATRIX' not in __import__('os').environ")
@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_how_long_it_takes(make_site: Callable[[str], Site], kind: str, wait_until: Any) -> None:
    """Twenty devices, one after the other; printed with `-s`."""
    site = make_site(kind)
    took = []
    for device_id in (f"dev{number}" for number in itertools.islice(itertools.count(), 20)):
        thief = site.connect(device_id, site.enrol(device_id))
        wait_until(lambda it=thief: it.up)
        began = time.monotonic()
        site.enrolment.revoke(device_id, "stolen")
        site.access.look()
        wait_until(lambda it=thief: not it.up)
        took.append(time.monotonic() - began)
    print(f"\n{kind}: median {sorted(took)[10]:.3f} s, longest {max(took):.3f} s")
    assert max(took) < CUT_OFF_WITHIN_S
