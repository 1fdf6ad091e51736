"""An event of the log as a CloudEvent, and its signature. No IO.

CloudEvents 1.0.2 in structured content mode (HTTP Protocol Binding 1.0.2, §3.2): the attributes
stand in the body, so that they are signed. Signed as Standard Webhooks 1.0 says: HMAC-SHA256 over
`{id}.{timestamp}.{body}`, one signature a secret.

Invariants: the same event is the same body, byte for byte, at each attempt; its id is of the
event's number and its time, for a database that is restored from a backup gives numbers again.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import to_json

from edgeloop_controller.errors import RefusedInputError

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
TYPE_PREFIX: Final = "edgeloop."
SECRET_PREFIX: Final = "whsec_"  # noqa: S105
SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64
SECRETS_MAX: Final = 4
SECRET_FILE_MAX_BYTES: Final = 4096
SECRET_HINT: Final = "make one: `printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" > FILE`"  # noqa: S105


@dataclass(frozen=True)
class LoggedEvent:
    """A row of the event log."""

    id: int
    at: float
    kind: str
    subject: str
    data: dict[str, Any]
    device_id: str | None


@dataclass(frozen=True)
class Message:
    id: str
    body: bytes


def cloud_event(event: LoggedEvent, source: str) -> Message:
    """`data` is the document that GET /v1/events gives of it."""
    message_id = f"{event.id}-{round(event.at * 1000)}"
    document = {
        "specversion": "1.0",
        "id": message_id,
        "source": source,
        "type": TYPE_PREFIX + event.kind,
        "subject": event.subject,
        "time": datetime.fromtimestamp(event.at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "id": event.id,
            "at": event.at,
            "kind": event.kind,
            "subject": event.subject,
            "data": event.data,
            "device_id": event.device_id,
        },
    }
    return Message(message_id, to_json(document, inf_nan_mode="null"))


def headers_of(message: Message, secrets: tuple[bytes, ...], now: float) -> dict[str, str]:
    timestamp = str(int(now))
    signed = b".".join((message.id.encode(), timestamp.encode(), message.body))
    signatures = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(s).decode()}" for s in signatures),
    }


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """A secret a line; empty lines and those that begin with `#` are none. Raises
    RefusedInputError, which does not repeat what it read."""
    lines = [line.strip() for line in text.splitlines()]
    written = [line for line in lines if line and not line.startswith("#")]
    if not 1 <= len(written) <= SECRETS_MAX:
        raise RefusedInputError(f"{len(written)} secrets; 1 to {SECRETS_MAX} sign", SECRET_HINT)
    return tuple(_secret(line, number) for number, line in enumerate(written, start=1))


def _secret(line: str, number: int) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise RefusedInputError(f"secret {number} is not base64", SECRET_HINT) from error
    if not line.startswith(SECRET_PREFIX):
        raise RefusedInputError(f"secret {number} does not begin with whsec_", SECRET_HINT)
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        limits = f"{SECRET_MIN_BYTES} to {SECRET_MAX_BYTES}"
        raise RefusedInputError(
            f"secret {number} has {len(secret)} bytes, not {limits}", SECRET_HINT
        )
    return secret
