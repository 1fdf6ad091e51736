"""What of a request's body is kept in the audit log: JSON, shortened; else its type and size.

Invariants: bounded, whatever is sent; nothing under a key of SECRET_KEYS; any database
can store it.
"""

import json
import math
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

BODY_READ_MAX_BYTES: Final = 64 * 1024
ESSENCE_MAX_CHARS: Final = 2000
VALUE_MAX_CHARS: Final = 200
ITEMS_MAX: Final = 20
SECRET_KEYS: Final = frozenset({"secret", "password", "token"})


class Body:
    """Reads along while the request is read."""

    def __init__(self, headers: Headers) -> None:
        self._type = headers.get("content-type", "").split(";")[0].strip()
        self._said = headers.get("content-length", "")
        self._is_json = self._type in ("", "application/json")
        self._content = bytearray()

    def read_by(self, receive: Receive) -> Receive:
        async def reading() -> Message:
            message = await receive()
            if self._is_json and len(self._content) <= BODY_READ_MAX_BYTES:
                self._content += message.get("body", b"")
            return message

        return reading

    def essence(self) -> dict[str, Any]:
        if not self._is_json:
            return {"content_type": self._type[:VALUE_MAX_CHARS], "bytes": self._said[:20]}
        if not self._content:
            return {}
        if len(self._content) > BODY_READ_MAX_BYTES:
            return {"bytes": self._said[:20]}
        try:
            document = _shortened(json.loads(self._content))
        except (ValueError, RecursionError):
            return {"not_json": ascii(bytes(self._content[:VALUE_MAX_CHARS]))}
        if not isinstance(document, dict):
            document = {"body": document}
        if len(json.dumps(document)) > ESSENCE_MAX_CHARS:
            document = {"keys": list(document)[:ITEMS_MAX], "bytes": len(self._content)}
        return document


def storable(text: str) -> str:
    """No database takes half of a surrogate pair, and PostgreSQL no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        cut = value if len(value) <= VALUE_MAX_CHARS else value[: VALUE_MAX_CHARS - 1] + "…"
        return storable(cut)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number, and the chain is made of JSON
    if isinstance(value, list):
        more = [f"… {len(value) - ITEMS_MAX} more"] if len(value) > ITEMS_MAX else []
        return [_shortened(one) for one in value[:ITEMS_MAX]] + more
    if isinstance(value, dict):
        return {
            _shortened(key): "(not recorded)" if key.lower() in SECRET_KEYS else _shortened(one)
            for key, one in value.items()
        }
    return value
