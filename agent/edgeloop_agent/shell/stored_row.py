"""A row of the outbox, and what its document says of it."""

from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from edgeloop_agent.core.reduction import Kind, Row
from edgeloop_agent.core.window_merge import merge_key
from edgeloop_protocol.messages import Sketches, WindowSummary

_SAMPLE: Final = b'{"kind":"sample",'
_SHADOW: Final = b'{"kind":"shadow",'
_EVENT: Final = b'{"kind":"event",'
Position = tuple[int, int]
"""(boot, sequence); boots in the order of time."""


class StoredRow(NamedTuple):
    boot: int
    sequence: int
    document: bytes


def read_row(document: bytes) -> Row:
    """What cannot be read counts as an event. Only windows are looked into: our encoder writes the
    kind first."""
    size = len(document)
    if document.startswith((_SAMPLE, _SHADOW)):
        return Row(Kind.SAMPLE, size)
    if document.startswith(_EVENT):
        return Row(Kind.EVENT, size)
    try:
        read: Any = from_json(document, cache_strings="keys")
        kind = Kind(read["kind"])
        if kind is not Kind.WINDOW:
            return Row(kind, size)
        window = WindowSummary.model_validate(read)
    except (ValueError, TypeError, KeyError):
        return Row(Kind.EVENT, size)
    return Row(
        kind,
        size,
        merge_key(window),
        window.started_at,
        window.ended_at,
        _size_of(window.sketches),
        window.windows,
    )


def window_of(document: bytes) -> WindowSummary:
    """Of a row that `read_row` took for a window."""
    return WindowSummary.model_validate_json(document)


def document_of(window: WindowSummary) -> bytes:
    return window.model_dump_json().encode()


def _size_of(sketches: Sketches | None) -> int:
    if sketches is None:
        return 0
    return max(1, sum(map(len, sketches.features)) + len(sketches.confidence))
