"""Topics (EL-TOPIC-1, EL-TOPIC-2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_protocol.errors import TopicError
from edgeloop_protocol.topics import (
    Down,
    Up,
    device_subscription,
    down_topic,
    parse_down_topic,
    parse_up_topic,
    up_topic,
)

device_ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)


@given(device_ids, st.sampled_from(Up), st.sampled_from(Down))
def test_topics_round_trip(device_id: str, up: Up, down: Down) -> None:
    assert parse_up_topic(up_topic(device_id, up)) == (device_id, up)
    assert parse_down_topic(down_topic(device_id, down)) == (device_id, down)
    assert device_subscription(device_id) == f"edgeloop/v1/{device_id}/down/+"


@pytest.mark.parametrize("device_id", ["", "a b", "a.b", "A", "-a", "a/b", "a+", "#", "a" * 65])
def test_ids_that_brokers_refuse_are_refused_first(device_id: str) -> None:
    with pytest.raises(TopicError, match="cannot stand in a topic"):
        up_topic(device_id, Up.HELLO)


@pytest.mark.parametrize(
    "topic",
    [
        "edgeloop/v1/d1/up/gossip",
        "edgeloop/v1/d1/down/ack",
        "edgeloop/v2/d1/up/hello",
        "edgeloop/v1/d1/up",
        "edgeloop/v1/d1/up/hello/more",
        "",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(TopicError):
        parse_up_topic(topic)


def test_a_word_about_the_kind() -> None:
    with pytest.raises(TopicError, match="known are desired, ack"):
        parse_down_topic("edgeloop/v1/d1/down/gossip")
