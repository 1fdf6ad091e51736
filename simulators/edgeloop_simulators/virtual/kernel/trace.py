"""What a world showed, as one hash and as lines that a person reads.

Invariant: the hash depends on everything seen, in order, and on nothing else: no memory address,
no hash seed, no clock of this machine.
"""

import hashlib
import json
from typing import Any, Final

from edgeloop_simulators.virtual.kernel.seen import Seen

_compact: Final = json.JSONEncoder(separators=(",", ":")).encode


class TraceHash:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def __call__(self, seen: Seen) -> None:
        self._hash.update(canonical(seen).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def canonical(seen: Seen) -> str:
    return f"{seen.at_s!r} {seen.part} {seen.what} {_compact(dict(seen.data))}\n"


def readable(seen: Seen) -> str:
    """One line of a timeline: `  61.20 s  rack-3      runner.exited   version=…`."""
    said = "  ".join(
        f"{name}={_short(value)}" for name, value in seen.data.items() if value not in (None, "")
    )
    return f"{seen.at_s:10.2f} s  {seen.part:<14} {seen.what:<22} {said}"


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, float) else f"{value:g}"
