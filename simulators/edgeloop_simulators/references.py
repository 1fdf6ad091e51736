"""What a window is called, and which windows overlap.

A reference is `r<recording>:<start>-<end>`, end exclusive, in rows of the recording; two windows
overlap if they share a row. Invariant: this is exact, so a window that overlaps training data can
always be told (it never counts in an accuracy).
"""

import re
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final, NamedTuple

from edgeloop_simulators.errors import DatasetError

_PATTERN: Final = re.compile(r"r(\d+):(\d+)-(\d+)")


class Reference(NamedTuple):
    recording: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"r{self.recording}:{self.start}-{self.end}"


def parse_reference(text: str) -> Reference:
    """Raises DatasetError for anything but `r<recording>:<start>-<end>` with start < end."""
    match = _PATTERN.fullmatch(text)
    if match is None or int(match[2]) >= int(match[3]):
        raise DatasetError(f"reference {text!r} is not r<recording>:<start>-<end>")
    return Reference(int(match[1]), int(match[2]), int(match[3]))


class RowRanges:
    """A set of row ranges that answers whether another range shares a row with any of them."""

    def __init__(self, references: Iterable[str] = ()) -> None:
        self._merged: dict[int, list[tuple[int, int]]] = {}
        for reference in references:
            self.add(reference)

    def add(self, reference: str) -> None:
        """Ranges that touch or overlap are merged, so that each recording's list stays disjoint."""
        recording, start, end = parse_reference(reference)
        ranges = self._merged.setdefault(recording, [])
        at = bisect_left(ranges, (start, start))
        if at and ranges[at - 1][1] >= start:
            at -= 1
        while at < len(ranges) and ranges[at][0] <= end:
            start, end = min(start, ranges[at][0]), max(end, ranges[at][1])
            del ranges[at]
        insort(ranges, (start, end))

    def overlaps(self, reference: str) -> bool:
        recording, start, end = parse_reference(reference)
        ranges = self._merged.get(recording, [])
        at = bisect_left(ranges, (end, end))  # the first range that begins at or after the end
        return at > 0 and ranges[at - 1][1] > start

    def __len__(self) -> int:
        return sum(len(ranges) for ranges in self._merged.values())
