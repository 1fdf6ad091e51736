"""Messages that no part of Edgeloop would send: malformed ones, and oversize ones.

Invariants: what is drawn depends on the stream alone; no payload is a valid message of its topic.
"""

import random
from collections.abc import Callable
from typing import Final

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.topics import PREFIX, Down, Up

NESTING: Final = 5_000
"""Deeper than Python's own recursion limit."""


def _noise(luck: random.Random) -> bytes:
    return luck.randbytes(luck.randint(1, 400))


def _nested(luck: random.Random) -> bytes:
    opening, closing = luck.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * NESTING + b"0" + closing * NESTING


def _text(luck: random.Random) -> bytes:
    return luck.choice(_TEXTS)


_TEXTS: Final = (
    b"",
    b"null",
    b"[]",
    b'"hello"',
    b"NaN",
    b"1e999",
    b"{",
    b'{"revision": NaN, "slots": {}}',
    b'{"revision": -1, "slots": []}',
    b'{"revision": "9", "slots": {"main": null}}',
    b'{"revision": 99999999999999999999999999, "slots": {}}',
    b'{"epoch": "", "sequence": -5, "base": 0, "records": []}',
    b'{"epoch": "\xff\xfe", "through": 1}',
    b'{"epoch": "\\ud800", "through": 1e400}',
)
_PAYLOADS: Final[tuple[Callable[[random.Random], bytes], ...]] = (_noise, _nested, _text, _text)
_KINDS_UP: Final = (*Up, *Down, "nonsense", "")
_KINDS_DOWN: Final = (*Down, *Up, "nonsense", "")


def poisoned(device_id: str, luck: random.Random) -> tuple[str, bytes]:
    """Topic and payload, of the device or to it."""
    if luck.random() < 0.1:
        return f"{PREFIX}/Not-An-Id/up/{luck.choice(_KINDS_UP)}", _text(luck)
    direction = luck.choice(("up", "down"))
    kind = luck.choice(_KINDS_UP if direction == "up" else _KINDS_DOWN)
    return f"{PREFIX}/{device_id}/{direction}/{kind}", luck.choice(_PAYLOADS)(luck)


def oversize(device_id: str, luck: random.Random) -> tuple[str, bytes]:
    """Of the device or to it, up to half more than what a receiver takes."""
    direction, kinds = luck.choice((("up", tuple(Up)), ("down", tuple(Down))))
    size_bytes = luck.randint(PAYLOAD_MAX_BYTES + 1, PAYLOAD_MAX_BYTES * 3 // 2)
    return f"{PREFIX}/{device_id}/{direction}/{luck.choice(kinds)}", b"x" * size_bytes
