"""Strikes at one operation on a disk that keeps what POSIX promises and no more, and looks, before
each that changes something, at the two worst that a power cut there could leave: no name survives
that was not synced, or all do; and of contents only what was synced.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgeloop_simulators.twins.disk import MemoryDisk, Operation

CHANGES: Final = frozenset(
    {"open", "write", "sync", "rename", "remove", "make_directory", "sync_directory"}
)

ContentOf = Callable[[str], bytes | None]
"""Of a path, after a power cut."""


class Fault(Enum):
    KILL = "killed"
    FULL = errno.ENOSPC
    BROKEN = errno.EIO


class Killed(BaseException):
    """The process is gone, in the middle of something."""


@dataclass(frozen=True)
class Struck:
    """`place`: the number of the operation, from 0."""

    place: int
    operation: str
    fault: Fault
    problems: tuple[str, ...]


class Striker:
    """`problem`: what is wrong with what a power cut leaves, in words; empty: nothing."""

    def __init__(self, place: int, fault: Fault, problem: Callable[[ContentOf], str]) -> None:
        self.disk: Final = MemoryDisk()
        self.problems: list[str] = []
        self.operation = ""
        """The one that the fault struck; empty: there were fewer."""
        self._place, self._fault = place, fault
        self._problem = problem
        self._operations = 0

    def begin(self) -> None:
        """Operations count from now on."""
        self.disk.before = self._before

    def look(self, at: str) -> None:
        for content_of in (self.disk.durable, self.disk.if_names_survive):
            problem = self._problem(content_of)
            if problem:
                self.problems.append(f"a power cut at {at} would leave: {problem}")

    def _before(self, operation: Operation, path: str) -> None:
        if operation not in CHANGES:
            return
        self.look(f"{operation} {path}")
        place, self._operations = self._operations, self._operations + 1
        if place != self._place:
            return
        self.operation = f"{operation} {path}"
        if self._fault is Fault.KILL:
            raise Killed
        raise OSError(self._fault.value, "as the torturer wants it", path)
