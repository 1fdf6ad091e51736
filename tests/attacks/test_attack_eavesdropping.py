"""Somebody on the way who reads along, or who answers in the broker's place. Line of defence: TLS,
to a broker that shows a certificate of the fleet's own authority."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls_config import TlsConfig

SECRET = b"what-the-camera-saw"
TOPIC = "edgeloop/v1/d1/up/telemetry"


class Wire:
    """Passes everything on, and keeps a copy."""

    def __init__(self, to_port: int) -> None:
        self.seen = bytearray()
        self._to_port = to_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to_port))
                self._links += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                self.seen += chunk
                sink.sendall(chunk)

    def cut(self) -> None:
        self._listening.close()
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()


class Listener:
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_connected = threading.Event()

    def connected(self) -> None:
        self.is_connected.set()

    def disconnected(self, _reason: str) -> None:
        self.is_connected.clear()

    def message(self, _topic: str, payload: bytes) -> None:
        self.received.append(payload)


@pytest.fixture
def make_wire() -> Iterator[Callable[[int], Wire]]:
    wires: list[Wire] = []

    def make(port: int) -> Wire:
        wires.append(Wire(port))
        return wires[-1]

    yield make
    for wire in wires:
        wire.cut()


def talk(port: int, tls: TlsConfig | None, wait_until: Any) -> bool:
    """A device says something to itself over the wire; whether it came."""
    listener = Listener()
    broker = PahoBroker(BrokerAddress("127.0.0.1", port, tls=tls), "d1", (TOPIC,))
    broker.start(listener)
    try:
        if not listener.is_connected.wait(3):
            return False
        broker.publish(TOPIC, SECRET)
        wait_until(lambda: listener.received == [SECRET])
        return True
    finally:
        broker.stop()


def test_who_reads_along_sees_nothing(
    make_authority: Any, tls_mosquitto: Any, make_wire: Callable[[int], Wire], wait_until: Any
) -> None:
    authority = make_authority()
    broker = tls_mosquitto(authority.issue("broker"), clients=authority)
    certificate, key = authority.issue("d1")
    tls = TlsConfig(ca_path=authority.certificate, certificate_path=certificate, key_path=key)
    wire = make_wire(broker.port)
    assert talk(wire.port, tls, wait_until)
    assert len(wire.seen) > 1000
    assert SECRET not in wire.seen
    assert TOPIC.encode() not in wire.seen


def test_without_the_line_all_is_seen(
    mosquitto: Any, make_wire: Callable[[int], Wire], wait_until: Any
) -> None:
    wire = make_wire(mosquitto.port)
    assert talk(wire.port, None, wait_until)
    assert SECRET in wire.seen


def test_who_answers_in_the_brokers_place_is_told_nothing(
    make_authority: Any, tls_mosquitto: Any, make_wire: Callable[[int], Wire], wait_until: Any
) -> None:
    """Its certificate is of another authority: a device goes on trying, and says nothing."""
    fleet, evil = make_authority(), make_authority("evil")
    impostor = tls_mosquitto(evil.issue("broker"))
    wire = make_wire(impostor.port)
    assert not talk(wire.port, TlsConfig(ca_path=fleet.certificate), wait_until)
    assert SECRET not in wire.seen
    assert talk(wire.port, TlsConfig(ca_path=evil.certificate), wait_until), "who trusts it, talks"
