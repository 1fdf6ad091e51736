"""One suite for every broker behind the `Broker` port: real ones, and the simulated one with each
of its profiles (the worlds are in conftest.py).

The real ones are driven by a thread for each client, and mosquitto by one loop for all of them too.

Cites EL-BROKER-1 … EL-BROKER-4 and EL-MSG-1 of docs/spec/wire.md.
"""

from collections.abc import Callable
from typing import Any

import pytest

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import Broker, BrokerAddress, PahoBroker

Connect = Callable[..., tuple[Broker, Any]]


def test_every_device_reaches_the_controller_in_order(connect: Connect) -> None:
    """EL-BROKER-1: `+` filters deliver each device's messages, in order, byte for byte."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    first, _ = connect("d1", "edgeloop/v1/d1/down/+")
    second, _ = connect("d2", "edgeloop/v1/d2/down/+")
    for number in range(20):
        assert first.publish("edgeloop/v1/d1/up/telemetry", b"%d" % number)
    assert second.publish("edgeloop/v1/d2/up/hello", bytes(range(256)))

    received = [controller.next() for _ in range(21)]
    from_first = [payload for topic, payload in received if "/d1/" in topic]
    assert from_first == [b"%d" % number for number in range(20)]
    assert ("edgeloop/v1/d2/up/hello", bytes(range(256))) in received


def test_a_device_hears_only_what_is_for_it(connect: Connect) -> None:
    """EL-TOPIC-1."""
    controller, _ = connect("controller", "edgeloop/v1/+/up/+")
    _, first = connect("d1", "edgeloop/v1/d1/down/+")
    _, second = connect("d2", "edgeloop/v1/d2/down/+")
    assert controller.publish("edgeloop/v1/d1/down/desired", b"one")
    assert controller.publish("edgeloop/v1/d2/down/desired", b"two")
    assert first.next()[1] == b"one"
    assert second.next()[1] == b"two"
    assert not first.messages
    assert not second.messages


def test_the_largest_payload_passes_and_a_larger_one_is_refused(connect: Connect) -> None:
    """EL-MSG-1: what is too large is refused by the sender, and what follows it is delivered."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, own = connect("d1", "edgeloop/v1/d1/down/+")
    topic = "edgeloop/v1/d1/up/telemetry"
    assert not device.publish(topic, b"x" * (PAYLOAD_MAX_BYTES + 1))
    assert device.publish(topic, b"x" * PAYLOAD_MAX_BYTES)
    assert device.publish(topic, b"after")
    assert len(controller.next()[1]) == PAYLOAD_MAX_BYTES
    assert controller.next()[1] == b"after"
    assert own.disconnections == []


def test_a_clean_stop_leaves_no_will(connect: Connect) -> None:
    """EL-BROKER-2: a stopped device is not announced dead by its last will."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, _ = connect("d1", will=("edgeloop/v1/d1/up/presence", b"gone"))
    witness, _ = connect("d2")
    device.stop()
    assert witness.publish("edgeloop/v1/d2/up/hello", b"later")
    assert controller.next() == ("edgeloop/v1/d2/up/hello", b"later")


def test_a_broker_that_goes_away_comes_back_by_itself(connect: Connect, world: Any) -> None:
    """EL-BROKER-3: while it is away nothing is accepted; afterwards all goes on."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, own = connect("d1", "edgeloop/v1/d1/down/+")
    world.go_away()
    world.wait_until(lambda: own.disconnections and controller.disconnections, what="both noticed")
    assert not device.publish("edgeloop/v1/d1/up/hello", b"lost")
    world.come_back()
    world.wait_until(
        lambda: own.connections == 2 and controller.connections == 2, what="both are back"
    )
    assert device.publish("edgeloop/v1/d1/up/hello", b"again")
    assert controller.next()[1] == b"again"


def test_the_newer_of_two_clients_with_one_id_is_served(connect: Connect) -> None:
    """EL-BROKER-4: a device that comes back before its old connection is noticed dead."""
    controller, _ = connect("controller", "edgeloop/v1/+/up/+")
    older, _ = connect("d1", "edgeloop/v1/d1/down/+")
    _, newer = connect("d1", "edgeloop/v1/d1/down/+")
    older.stop()
    assert controller.publish("edgeloop/v1/d1/down/desired", b"for the newer")
    assert newer.next()[1] == b"for the newer"


@pytest.mark.parametrize("kind", ["mosquitto", "simulated ideal"])
def test_what_was_not_acknowledged_is_sent_again_after_a_reconnect(
    kind: str, make_world: Callable[[str], Any]
) -> None:
    """EL-TEL-2 rests on it: a client says again what its broker may have had."""
    world = make_world(kind)
    recorder, heard = world.recorder(), world.recorder()
    device = world.client("d1", (), None)
    device.start(recorder)
    world.wait_until(lambda: recorder.connections == 1, what="it is connected")
    world.freeze()
    assert device.publish("edgeloop/v1/d1/up/hello", b"unheard")
    world.go_away()
    world.wait_until(lambda: recorder.disconnections, what="it noticed")
    controller = world.client("controller", ("edgeloop/v1/+/up/+",), None)
    world.come_back()
    controller.start(heard)
    assert heard.next() == ("edgeloop/v1/d1/up/hello", b"unheard")
    assert recorder.connections == 2
    device.stop()
    controller.stop()
    world.close()


class Refusals:
    def __init__(self) -> None:
        self.connections = 0
        self.reasons: list[str] = []

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        pass


def test_wrong_password_is_refused_in_words(
    mosquitto: Any, wait_until: Callable[..., None]
) -> None:
    mosquitto.stop()
    mosquitto.settings = "allow_anonymous false\n"
    mosquitto.start()
    refusals = Refusals()
    client = PahoBroker(BrokerAddress("127.0.0.1", mosquitto.port, "me", "wrong"), "d1", ())
    client.start(refusals)
    wait_until(lambda: refusals.reasons, what="the refusal is reported")
    client.stop()
    assert "refused the connection" in refusals.reasons[0]
    assert refusals.connections == 0
