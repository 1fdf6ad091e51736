"""Up messages: bytes on a topic → a typed message with its sender, or a stated refusal. Pure.

Invariants: telemetry whose numbers can be read is received, whatever its records hold: one that a
newer agent means otherwise (an unknown kind) or that is out of range is unusable by itself.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store.telemetry import PartialBatch, UnusableRecord
from edgeloop_protocol.errors import MessageError, TopicError, first_problem
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES, TEXT_MAX_CHARS
from edgeloop_protocol.messages import (
    Hello,
    Presence,
    RecordBody,
    Reported,
    Response,
    TelemetryBatch,
    UpMessage,
    decode,
)
from edgeloop_protocol.topics import Up, parse_up_topic

_BODY: Final[TypeAdapter[Any]] = TypeAdapter(RecordBody)
_STAND_IN: Final = {"kind": "event", "at": 0.0, "name": "unusable"}


@dataclass(frozen=True)
class Received:
    device_id: str
    message: UpMessage | PartialBatch
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


def _decode(kind: Up, payload: bytes) -> UpMessage | PartialBatch:
    match kind:
        case Up.HELLO:
            return decode(Hello, payload)
        case Up.REPORTED:
            return decode(Reported, payload)
        case Up.TELEMETRY:
            return _decode_telemetry(payload)
        case Up.PRESENCE:
            return decode(Presence, payload)
        case Up.RESPONSE:
            return decode(Response, payload)


def _decode_telemetry(payload: bytes) -> TelemetryBatch | PartialBatch:
    """Raises MessageError when epoch, base or sequences cannot be read: it names no cursor then."""
    try:
        return decode(TelemetryBatch, payload)
    except MessageError as error:
        partial = _decode_partly(payload) if len(payload) <= PAYLOAD_MAX_BYTES else None
        if partial is None:
            raise error
        return partial


def _decode_partly(payload: bytes) -> PartialBatch | None:
    """None when it is not by its records that the batch is wrong."""
    try:
        document = json.loads(payload)
        unusable = _take_out_unusable(document["records"])
        batch = TelemetryBatch.model_validate(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    records = [
        UnusableRecord(record.sequence, unusable[number]) if number in unusable else record
        for number, record in enumerate(batch.records)
    ]
    return PartialBatch(batch.epoch, batch.base, tuple(records), batch.said, batch.reduced)


def _take_out_unusable(records: list[dict[str, Any]]) -> dict[int, str]:
    """Puts a stand-in for each body that is not valid; returns what was wrong, by position."""
    unusable: dict[int, str] = {}
    for number, record in enumerate(records):
        try:
            _BODY.validate_python(record.get("body"))
        except ValidationError as error:
            unusable[number] = first_problem(error)
            record["body"] = _STAND_IN
    return unusable
