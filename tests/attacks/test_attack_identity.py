"""Client-id theft and reading another's topics, where the line is not there: a broker that asks
nobody for a certificate. tests/contracts/test_broker_isolation.py holds the line."""

import threading
from typing import Any

from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker

DESIRED = "edgeloop/v1/d1/down/desired"


class Listener:
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_connected, self.was_cut_off = threading.Event(), threading.Event()

    def connected(self) -> None:
        self.is_connected.set()

    def disconnected(self, _reason: str) -> None:
        self.was_cut_off.set()

    def message(self, _topic: str, payload: bytes) -> None:
        self.received.append(payload)


def test_without_the_line_an_id_is_anybodys(mosquitto: Any, wait_until: Any) -> None:
    address = BrokerAddress("127.0.0.1", mosquitto.port)
    device, thief, controller = Listener(), Listener(), Listener()
    links = []
    for name, listener, topics in (
        ("d1", device, (DESIRED,)),
        ("d1", thief, (DESIRED,)),
        ("edgeloop-controller", controller, ()),
    ):
        links.append(PahoBroker(address, name, topics))
        links[-1].start(listener)
        assert listener.is_connected.wait(10)
    try:
        assert device.was_cut_off.wait(10), "the thief's connection ended the device's"
        wait_until(lambda: links[2].publish(DESIRED, b"for d1 alone"))
        wait_until(lambda: thief.received or device.received)
    finally:
        for link in links:
            link.stop()
