"""MQTT topics: built and parsed in one place.

`edgeloop/v1/{device}/up/{kind}` and `edgeloop/v1/{device}/down/{kind}` (EL-TOPIC-1), so that one
broker ACL pattern isolates each device. No spaces, which NATS refuses, and no dots, which brokers
translate (EL-TOPIC-2).
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

from edgeloop_protocol.errors import TopicError
from edgeloop_protocol.limits import DEVICE_ID_MAX_CHARS

PREFIX: Final = "edgeloop/v1"
EVERY_DEVICE_UP: Final = f"{PREFIX}/+/up/+"

_DEVICE_ID: Final = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{DEVICE_ID_MAX_CHARS - 1}}}")


class Up(StrEnum):
    """What a device says."""

    HELLO = "hello"
    REPORTED = "reported"
    TELEMETRY = "telemetry"
    PRESENCE = "presence"
    RESPONSE = "response"


class Down(StrEnum):
    """What the controller says to one device."""

    DESIRED = "desired"
    ACK = "ack"
    REQUEST = "request"


_UP_KINDS: Final = {kind.value: kind for kind in Up}
_DOWN_KINDS: Final = {kind.value: kind for kind in Down}


class UpTopic(NamedTuple):
    device_id: str
    kind: Up


class DownTopic(NamedTuple):
    device_id: str
    kind: Down


def check_device_id(device_id: str) -> str:
    """Return `device_id` if it can stand in a topic, else raise TopicError."""
    if not _DEVICE_ID.fullmatch(device_id):
        raise TopicError(
            f"device id {device_id!r} cannot stand in a topic: use 1 to {DEVICE_ID_MAX_CHARS} "
            "characters of a-z, 0-9, '-' and '_', the first a letter or a digit"
        )
    return device_id


def up_topic(device_id: str, kind: Up) -> str:
    return f"{PREFIX}/{check_device_id(device_id)}/up/{kind}"


def down_topic(device_id: str, kind: Down) -> str:
    return f"{PREFIX}/{check_device_id(device_id)}/down/{kind}"


def device_subscription(device_id: str) -> str:
    """The one filter that an agent subscribes to."""
    return f"{PREFIX}/{check_device_id(device_id)}/down/+"


def _parts(topic: str, direction: str) -> tuple[str, str]:
    parts = topic.split("/")
    if len(parts) != 5 or parts[3] != direction or not topic.startswith(f"{PREFIX}/"):
        raise TopicError(f"topic {topic!r} is not {PREFIX}/<device>/{direction}/<kind>")
    return check_device_id(parts[2]), parts[4]


def parse_up_topic(topic: str) -> UpTopic:
    """Raises TopicError for anything that is not a device's topic of a known kind."""
    device_id, name = _parts(topic, "up")
    kind = _UP_KINDS.get(name)
    if kind is None:
        raise TopicError(f"topic {topic!r} ends in an unknown kind; known are {', '.join(Up)}")
    return UpTopic(device_id, kind)


def parse_down_topic(topic: str) -> DownTopic:
    """Raises TopicError for anything that is not a controller's topic of a known kind."""
    device_id, name = _parts(topic, "down")
    kind = _DOWN_KINDS.get(name)
    if kind is None:
        raise TopicError(f"topic {topic!r} ends in an unknown kind; known are {', '.join(Down)}")
    return DownTopic(device_id, kind)
