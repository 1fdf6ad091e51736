"""Where brokers differ: each real one, and the simulated one with its profile, do the same.

The figures stand in edgeloop_simulators.virtual.network.broker_profiles, their sources in
docs/spec/brokers.md.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeloop_protocol.limits import KIB, MIB, PAYLOAD_MAX_BYTES
from edgeloop_simulators.virtual.network.broker_profiles import (
    PROFILES,
    BrokerProfile,
    TakeoverWill,
)

UP = "edgeloop/v1/d1/up/telemetry"
DOWN = "edgeloop/v1/d1/down/desired"
PRESENCE = "edgeloop/v1/d1/up/presence"
ALL_UP = "edgeloop/v1/+/up/+"

WITNESS_BEHIND_MAX = 20  # messages: far from the bytes at which any broker drops a client's own

Started = Callable[[Any], tuple[Any, Any]]
Connect = Callable[..., tuple[Any, Any]]


@pytest.fixture(params=["mosquitto", "iotcore", "nats"])
def profile(request: pytest.FixtureRequest) -> BrokerProfile:
    return PROFILES[request.param]


@pytest.fixture(params=["real", "simulated"])
def world(
    request: pytest.FixtureRequest,
    profile: BrokerProfile,
    make_world: Callable[[str], Any],
) -> Iterator[Any]:
    if request.param == "simulated":
        made = make_world(f"simulated {profile.name}")
    else:
        if profile.name == "mosquitto":  # as it is when nobody configures it
            mosquitto = request.getfixturevalue("mosquitto")
            mosquitto.stop()
            mosquitto.limits = ""
        made = make_world(profile.name)
    yield made
    made.close()


def test_a_payload_over_the_limit_closes_the_connection_of_its_sender(
    world: Any, profile: BrokerProfile, connect: Connect, started: Started
) -> None:
    _, controller = connect("controller", ALL_UP)
    device, own = started(world.careless_client("d1"))
    fits = min(profile.payload_max_bytes - KIB, 2 * MIB)
    device.publish(UP, b"x" * fits)
    assert len(controller.next()[1]) == fits
    assert fits > PAYLOAD_MAX_BYTES
    if profile.payload_max_bytes < 2 * MIB:
        device.publish(UP, b"x" * (profile.payload_max_bytes + KIB))
        world.wait_until(lambda: own.disconnections, what="the connection is closed")
        assert not controller.messages


@pytest.mark.parametrize("character", [" ", "."])
def test_topics_that_a_broker_refuses(
    world: Any, profile: BrokerProfile, connect: Connect, started: Started, character: str
) -> None:
    _, controller = connect("controller", ALL_UP)
    device, own = started(world.careless_client("d1"))
    topic = f"edgeloop/v1/d{character}1/up/hello"
    device.publish(topic, b"x")
    if character in profile.refused_in_topics:
        world.wait_until(lambda: own.disconnections, what="the connection is closed")
        assert not controller.messages
    else:
        assert controller.next() == (topic, b"x")


def _through_a_slow_subscriber(
    world: Any, connect: Connect, started: Started, count: int, payload: bytes
) -> int:
    """How many of `count` messages a subscriber gets that takes none until all were sent."""
    controller, heard = started(world.slow_client("controller", ALL_UP))
    _, witness = connect("witness", "edgeloop/v1/d1/up/+")
    device, _ = connect("d1")
    for sent in range(1, count + 1):
        world.wait_until(lambda: device.publish(UP, payload), what="it is taken")
        world.wait_until(
            lambda sent=sent: sent - len(witness.messages) < WITNESS_BEHIND_MAX,
            what="the witness keeps up",
        )
    world.wait_until(lambda: len(witness.messages) == count, what="all were sent")
    controller.catch_up()
    for number in range(10_000):
        marker = b"marker %d" % number
        assert device.publish(UP, marker)
        world.wait_until(lambda marker=marker: witness.messages[-1][1] == marker, what="it is sent")
        if heard.messages and heard.messages[-1][1].startswith(b"marker"):
            break  # all that came before it has arrived, or never will
    return sum(message == payload for _, message in heard.messages)


def test_a_queue_that_is_full_loses_messages_without_a_word(
    world: Any, profile: BrokerProfile, connect: Connect, started: Started
) -> None:
    arrived = _through_a_slow_subscriber(world, connect, started, 1500, b"x")
    assert arrived == min(profile.queue_max, 1500)


def test_a_log_that_is_full_loses_messages_without_a_word(
    world: Any, profile: BrokerProfile, connect: Connect, started: Started
) -> None:
    count, payload = 300, b"x" * (120 * KIB)
    arrived = _through_a_slow_subscriber(world, connect, started, count, payload)
    if profile.queue_max_bytes < count * len(payload):
        assert 0.4 * count < arrived < 0.9 * count
    else:
        assert arrived == count


def test_retained_messages_after_a_kill(world: Any, profile: BrokerProfile) -> None:
    wanted = "edgeloop/v1/d1/down/+"
    world.retain(DOWN, b"kept")
    world.wait_until(lambda: world.is_retained(wanted), what="it is retained")
    world.go_away()
    world.come_back()
    if profile.keeps_retained_over_restart:
        world.wait_until(lambda: world.is_retained(wanted), what="it was kept")
    else:
        assert not world.is_retained(wanted)


def test_the_will_of_a_killed_client_is_delivered(
    world: Any, connect: Connect, started: Started
) -> None:
    _, controller = connect("controller", ALL_UP)
    device, _ = started(world.careless_client("d1", will=(PRESENCE, b"gone")))
    device.die()
    assert controller.next() == (PRESENCE, b"gone")


def test_whose_will_is_delivered_at_a_takeover(
    world: Any, profile: BrokerProfile, connect: Connect
) -> None:
    _, controller = connect("controller", ALL_UP)
    older, _ = connect("d1", will=(PRESENCE, b"older"))
    newer, _ = connect("d1", will=(PRESENCE, b"newer"))
    older.stop()
    world.wait_until(lambda: newer.publish(UP, b"here"), what="the newer is served")
    world.wait_until(lambda: (UP, b"here") in controller.messages, what="it is heard")
    wills = [payload for topic, payload in controller.messages if topic == PRESENCE]
    expected = profile.will_at_takeover
    assert wills == ([] if expected is TakeoverWill.NOBODY else [expected.value.encode()])
