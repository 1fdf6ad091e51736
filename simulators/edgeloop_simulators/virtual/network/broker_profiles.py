"""What brokers do that MQTT leaves open, or forbids: one value for each that Edgeloop runs on.

Invariant: what a profile says is shown on the real broker (tests/contracts/test_broker_profiles.py)
or has its source in docs/spec/brokers.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeloop_protocol.limits import KIB, MIB

QUEUE_MAX: Final = 100_000
"""Messages that wait for one subscriber, where a broker itself sets no limit."""
KEEPALIVE_FACTOR: Final = 1.5
"""Times the keepalive, until a broker takes a silent client for dead (MQTT 3.1.1, 3.1.2.10)."""


class TakeoverWill(StrEnum):
    """Whose last will is delivered when a newer connection takes over a client id."""

    OLDER = "older"
    """As MQTT 3.1.1 demands (MQTT-3.1.2-8)."""
    NEWER = "newer"
    """The device that has just come is announced dead."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class BrokerProfile:
    """`queue_max` messages and `queue_max_bytes` at most are underway to, or wait for, one
    subscriber; what comes beyond is lost without a word."""

    name: str
    queue_max: int = QUEUE_MAX
    queue_max_bytes: int = 256 * MIB
    payload_max_bytes: int = 256 * MIB
    """The connection that sends more is closed."""
    refused_in_topics: str = ""
    """Characters for which the sender's connection is closed."""
    keeps_retained_over_restart: bool = True
    retained_for_wildcards: bool = True
    will_at_takeover: TakeoverWill = TakeoverWill.OLDER


IDEAL: Final = BrokerProfile("ideal")
MOSQUITTO: Final = BrokerProfile("mosquitto", queue_max=1020, keeps_retained_over_restart=False)
IOTCORE: Final = BrokerProfile(
    "iotcore",
    queue_max_bytes=16 * MIB,
    payload_max_bytes=192 * KIB,
    keeps_retained_over_restart=False,
    will_at_takeover=TakeoverWill.NEWER,
)
NATS: Final = BrokerProfile(
    "nats",
    payload_max_bytes=MIB,
    refused_in_topics=" ",
    will_at_takeover=TakeoverWill.NOBODY,
)
RABBITMQ: Final = BrokerProfile("rabbitmq", retained_for_wildcards=False)
WORST: Final = BrokerProfile(
    "worst",
    queue_max=100,
    queue_max_bytes=MIB,
    payload_max_bytes=144 * KIB,
    refused_in_topics=" .",
    keeps_retained_over_restart=False,
    will_at_takeover=TakeoverWill.NEWER,
)
"""All that is known of any of them, at once."""

PROFILES: Final = {
    profile.name: profile for profile in (IDEAL, MOSQUITTO, IOTCORE, NATS, RABBITMQ, WORST)
}
