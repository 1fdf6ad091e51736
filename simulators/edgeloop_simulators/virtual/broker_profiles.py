"""What brokers do that MQTT leaves open, or forbids: one value for each that Edgeloop runs on.

Invariant: what a profile says is shown by a test on the real broker or has its source in
docs/spec/brokers.md.
"""

from dataclasses import dataclass
from typing import Final

from edgeloop_protocol.limits import KIB, MIB

QUEUE_MAX: Final = 100_000
"""Messages that wait for one subscriber, where a broker itself sets no limit."""
KEEPALIVE_FACTOR: Final = 1.5
"""Times the keepalive, until a broker takes a silent client for dead (MQTT 3.1.1, 3.1.2.10)."""


@dataclass(frozen=True, slots=True)
class BrokerProfile:
    """`queue_max`: messages underway to, or waiting for, one subscriber; what comes beyond is
    dropped without a word. `payload_max_bytes`: beyond it, the sender's connection is closed, or
    (not `oversize_closes`) the message dropped."""

    name: str
    queue_max: int = QUEUE_MAX
    wildcard_queue_max: int = QUEUE_MAX
    """The same for a subscriber to all devices at once."""
    payload_max_bytes: int = 256 * MIB
    oversize_closes: bool = True
    refused_in_topics: str = ""
    """Characters for which the sender's connection is closed."""
    keeps_retained_over_restart: bool = True
    delivers_will: bool = True
    will_at_takeover: bool = True
    """The will of a connection that a newer one with the same client id replaces."""


IDEAL: Final = BrokerProfile("ideal")
MOSQUITTO: Final = BrokerProfile(
    "mosquitto",
    queue_max=1000,
    keeps_retained_over_restart=False,
)
IOTCORE: Final = BrokerProfile(
    "iotcore",
    wildcard_queue_max=1000,
    payload_max_bytes=192 * KIB,
    keeps_retained_over_restart=False,
)
NATS: Final = BrokerProfile(
    "nats",
    payload_max_bytes=MIB,
    refused_in_topics=" ",
)
RABBITMQ: Final = BrokerProfile(
    "rabbitmq",
    keeps_retained_over_restart=False,
)

PROFILES: Final = {profile.name: profile for profile in (IDEAL, MOSQUITTO, IOTCORE, NATS, RABBITMQ)}
