"""Up messages: bytes on a topic → a typed message with its sender, or a stated refusal. Pure."""

from dataclasses import dataclass

from edgeloop_controller.services.inbox import Inbound
from edgeloop_protocol.errors import MessageError, TopicError
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Hello, Presence, Reported, TelemetryBatch, UpMessage, decode
from edgeloop_protocol.topics import Up, parse_up_topic


@dataclass(frozen=True)
class Received:
    device_id: str
    message: UpMessage
    size_bytes: int


@dataclass(frozen=True)
class Refused:
    """`sender` is the device's id, or the topic when that names none."""

    sender: str
    reason: str
    size_bytes: int


def decode_inbound(inbound: Inbound) -> Received | Refused:
    """Never raises: a bad message must not block those behind it."""
    size_bytes = inbound.size_bytes
    try:
        device_id, kind = parse_up_topic(inbound.topic)
    except TopicError as error:
        return Refused(inbound.topic[:TEXT_MAX_CHARS], str(error)[:TEXT_MAX_CHARS], size_bytes)
    try:
        message = _decode(kind, inbound.payload)
    except MessageError as error:
        return Refused(device_id, str(error)[:TEXT_MAX_CHARS], size_bytes)
    if isinstance(message, Hello) and message.device_id != device_id:
        reason = f"hello of device {message.device_id!r} on the topic of {device_id!r}"
        return Refused(device_id, reason, size_bytes)
    return Received(device_id, message, size_bytes)


def _decode(kind: Up, payload: bytes) -> UpMessage:
    match kind:
        case Up.HELLO:
            return decode(Hello, payload)
        case Up.REPORTED:
            return decode(Reported, payload)
        case Up.TELEMETRY:
            return decode(TelemetryBatch, payload)
        case Up.PRESENCE:
            return decode(Presence, payload)
