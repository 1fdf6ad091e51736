"""A source of JSON lines from standard input or a FIFO, which the supervisor holds open.

Invariants: a line that has come in part when a runner stops is left to the next one; at the end
of the input the source is silent, and nothing else happens.
"""

import os
import select
from typing import Final

from edgeloop_agent.errors import DataSetError
from edgeloop_agent.runner.handover import HandOver, Left
from edgeloop_agent.runner.sources import Example, parse_line
from edgeloop_protocol.limits import MIB

READ_BYTES: Final = 64 * 1024
LINE_MAX_BYTES: Final = 1 * MIB


class LineFeed:
    wants_to_write = False

    def __init__(self, descriptor: int | None, hand_over: HandOver | None) -> None:
        if descriptor is None:
            raise DataSetError("the source of lines cannot be opened: see the agent's log")
        self._descriptor = descriptor
        self._hand_over = hand_over
        self._rest = b"".join(one.unread for one in hand_over.take()) if hand_over else b""
        self._is_at_end = False

    def fileno(self) -> int | None:
        return None if self._is_at_end else self._descriptor

    def next_due(self) -> float | None:
        return None

    def flush(self) -> None:
        """It only reads."""

    def read(self, now: float) -> list[Example]:  # noqa: ARG002 - the port's
        if self._is_at_end or not _is_readable(self._descriptor):
            return []
        try:
            chunk = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        if not chunk:
            self._is_at_end = True
            chunk = b"\n" if self._rest else b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_MAX_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        return [parse_line(line if len(line) <= LINE_MAX_BYTES else None) for line in lines if line]

    def close(self) -> None:
        if self._rest and self._hand_over is not None:
            self._hand_over.give(Left(None, self._rest))
            self._rest = b""


def _is_readable(descriptor: int) -> bool:
    """Standard input may block, and is not ours to set otherwise: it is shared."""
    return bool(select.select([descriptor], [], [], 0)[0])
