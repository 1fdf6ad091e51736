"""Makes room in a full outbox: reads it segment by segment, asks `core.reduction` what to give up,
and writes what is left.

A segment's rows stand for the numbers from its first to its last. What is left of them takes the
last of these numbers, in order, so that the numbers that nobody holds any more lie together before
it. Only rows that were never sent change their numbers, and the last row of a boot is in no segment
(EL-TEL-5: it carries what is gone before it to the controller).

Invariants: frees at least what is asked for, if there is so much; nothing is dropped while
something can be merged; runs within the transaction of its caller.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, NamedTuple, Protocol

from edgeloop_agent.core.reduction import (
    DROPPED_KINDS,
    GRAINS_S,
    OutboxLimits,
    Row,
    Rung,
    Tally,
    bucket,
    merge_groups,
    rows_to_drop,
    rows_to_shed,
    sealed_rows,
    tally_dropped,
)
from edgeloop_agent.core.window_merge import merge, without_sketches
from edgeloop_agent.shell.stored_row import (
    Position,
    StoredRow,
    document_of,
    read_row,
    window_of,
)

FIRST: Final[Position] = (0, 0)


class ReducibleRows(Protocol):
    """What the reducer does to an outbox."""

    def rows_from(self, position: Position) -> Iterator[StoredRow]:
        """In order; not used any more once something is changed."""

    def replace(self, boot: int, through: int, old: Sequence[int], new: Sequence[bytes]) -> None:
        """`old` sequences go; `new` documents take the last sequences up to `through`."""

    def count(self, boot: int, tally: Tally) -> None: ...


@dataclass(slots=True)
class Freed:
    """`rows` by boot."""

    rows: Counter[int] = field(default_factory=Counter)
    size_bytes: int = 0
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of one boot; `is_newest`: nothing but the newest row of all lies behind."""

    rows: tuple[StoredRow, ...]
    is_newest: bool

    @property
    def boot(self) -> int:
        return self.rows[0].boot

    @property
    def behind(self) -> Position:
        return self.boot, self.rows[-1].sequence + 1


class OutboxReducer:
    """`hands` say, for each rung, from where on there may be something to give up; they are worth
    nothing but time, and a boot begins without."""

    def __init__(self, max_bytes: int, limits: OutboxLimits) -> None:
        self._limits = limits
        self._aggregates = max_bytes >= limits.aggregates_from_bytes
        self._slack_bytes = int(max_bytes * limits.slack_share)
        self._hands = dict.fromkeys(Rung, FIRST)

    def free(self, store: ReducibleRows, need_bytes: int) -> Freed:
        freed = Freed()
        sealed_end = self._sealed_end(store)
        if self._aggregates:
            for rung in Rung:
                self._sweep(store, rung, need_bytes, sealed_end, freed)
                if freed.size_bytes >= need_bytes:
                    return freed
        self._drop_oldest(store, need_bytes, sealed_end, freed)
        return freed

    def _sealed_end(self, store: ReducibleRows) -> Position:
        """The first row that was surely never sent. A small outbox merges nothing, and needs not
        to know."""
        if not self._aggregates:
            return FIRST
        first = next(store.rows_from(FIRST), None)
        if first is None:
            return FIRST
        seen: list[StoredRow] = []

        def sizes_bytes() -> Iterator[int]:
            for row in takewhile(lambda row: row.boot == first.boot, store.rows_from(FIRST)):
                seen.append(row)
                yield len(row.document)

        sealed = sealed_rows(sizes_bytes(), self._limits)
        last = seen[min(sealed, len(seen)) - 1]
        return last.boot, last.sequence + 1

    def _sweep(
        self, store: ReducibleRows, rung: Rung, need_bytes: int, sealed_end: Position, freed: Freed
    ) -> None:
        """From the rung's hand on, until enough is freed with some slack, or the end is reached."""
        enough = need_bytes + self._slack_bytes
        while freed.size_bytes < enough:
            segment = self._segment(store, max(self._hands[rung], sealed_end))
            if segment is None:
                return
            rows = [read_row(stored.document) for stored in segment.rows]
            changes = _changes(rung, rows, segment, enough - freed.size_bytes, self._limits)
            if changes.is_none and segment.is_newest and rung in GRAINS_S:
                return  # the newest period is open: the hand waits at its beginning
            left = (
                self._apply(store, segment, rows, changes, freed) if not changes.is_none else None
            )
            if rung in GRAINS_S and left is not None:
                self._hands[rung] = _open_period(left, segment, GRAINS_S[rung])
            elif freed.size_bytes < enough:
                self._hands[rung] = segment.behind
            if segment.is_newest:
                return

    def _segment(self, store: ReducibleRows, start: Position) -> _Segment | None:
        """Never the last row of a boot."""
        rows: list[StoredRow] = []
        size, before = 0, None
        for row in store.rows_from(start):
            if before is not None and before.boot == row.boot:
                size += len(before.document)
                too_large = size > self._limits.segment_bytes_max and len(rows) > 1
                if too_large or len(rows) >= self._limits.segment_rows_max:
                    return _Segment(tuple(rows), is_newest=False)
                rows.append(before)
            elif rows:
                return _Segment(tuple(rows), is_newest=False)
            before = row
        return _Segment(tuple(rows), is_newest=True) if rows else None

    def _apply(
        self,
        store: ReducibleRows,
        segment: _Segment,
        rows: Sequence[Row],
        changes: "_Changes",
        freed: Freed,
    ) -> list[StoredRow]:
        """What is left of the segment. What lies behind the last change stays as it is."""
        end = 1 + max(changes.gone | changes.new.keys())
        changed, behind = segment.rows[:end], segment.rows[end:]
        kept = [
            changes.new.get(place, stored.document)
            for place, stored in enumerate(changed)
            if place not in changes.gone
        ]
        through = changed[-1].sequence
        store.replace(segment.boot, through, [row.sequence for row in changed], kept)
        store.count(segment.boot, changes.tally)
        freed.rows[segment.boot] += len(changes.gone)
        freed.size_bytes += sum(row.size_bytes for row in rows[:end]) - sum(map(len, kept))
        freed.tally.add(changes.tally)
        first = through - len(kept) + 1
        moved = [StoredRow(segment.boot, first + n, document) for n, document in enumerate(kept)]
        return [*moved, *behind]

    def _drop_oldest(
        self, store: ReducibleRows, need_bytes: int, sealed_end: Position, freed: Freed
    ) -> None:
        """Each boot's last row only after all others, what may have been sent after what was not,
        and the newest row of all at the very end."""
        for victims in _ORDER_OF_DROPS:
            if freed.size_bytes >= need_bytes:
                return
            doomed: list[StoredRow] = []
            size = freed.size_bytes
            for row, is_last, is_newest in _with_what_follows(store.rows_from(FIRST)):
                if size >= need_bytes:
                    break
                if victims((row.boot, row.sequence) < sealed_end, is_last, is_newest):
                    doomed.append(row)
                    size += len(row.document)
            for row in doomed:
                tally = tally_dropped([read_row(row.document)])
                store.replace(row.boot, row.sequence, [row.sequence], [])
                store.count(row.boot, tally)
                freed.tally.add(tally)
                freed.rows[row.boot] += 1
            freed.size_bytes = size


_ORDER_OF_DROPS: Final[tuple[Callable[[bool, bool, bool], bool], ...]] = (
    lambda sealed, last, _: not sealed and not last,
    lambda sealed, _, newest: not sealed and not newest,
    lambda _, last, __: not last,
    lambda *_: True,
)


class _Changes(NamedTuple):
    """Of a segment, by place."""

    new: Mapping[int, bytes]
    gone: frozenset[int]
    tally: Tally

    @property
    def is_none(self) -> bool:
        return not self.new and not self.gone


def _changes(
    rung: Rung, rows: Sequence[Row], segment: _Segment, need_bytes: int, limits: OutboxLimits
) -> _Changes:
    if rung in GRAINS_S:
        return _merged(rows, segment, GRAINS_S[rung], limits.record_bytes_max)
    if rung is Rung.SKETCHES:
        shed = rows_to_shed(rows, need_bytes)
        bare = {p: document_of(without_sketches(window_of(segment.rows[p].document))) for p in shed}
        return _Changes(bare, frozenset(), Tally(sketches_shed=len(shed)))
    gone = rows_to_drop(rows, DROPPED_KINDS[rung], need_bytes)
    return _Changes({}, frozenset(gone), tally_dropped(rows[place] for place in gone))


def _merged(
    rows: Sequence[Row], segment: _Segment, grain_s: float, record_bytes_max: int
) -> _Changes:
    new: dict[int, bytes] = {}
    gone: set[int] = set()
    tally = Tally()
    for group in merge_groups(rows, grain_s):
        document = document_of(merge([window_of(segment.rows[place].document) for place in group]))
        size = sum(rows[place].size_bytes for place in group)
        if len(document) >= min(size, record_bytes_max + 1):
            continue
        new[group[-1]] = document
        gone.update(group[:-1])
        tally.windows_merged += len(group) - 1
        tally.sketches_shed += sum(rows[place].sketch_bytes > 0 for place in group)
    return _Changes(new, frozenset(gone), tally)


def _open_period(left: Sequence[StoredRow], segment: _Segment, grain_s: float) -> Position:
    """Where the last window's period begins: what follows the segment may belong to it."""
    periods = [bucket(read_row(stored.document), grain_s) for stored in left]
    last = next((period for period in reversed(periods) if period is not None), None)
    for stored, period in zip(left, periods, strict=True):
        if period is not None and period == last:
            return stored.boot, stored.sequence
    return segment.behind


def _with_what_follows(rows: Iterator[StoredRow]) -> Iterator[tuple[StoredRow, bool, bool]]:
    """Each row, whether it is its boot's last, and whether it is the newest of all."""
    before: StoredRow | None = None
    for row in rows:
        if before is not None:
            yield before, before.boot != row.boot, False
        before = row
    if before is not None:
        yield before, True, True
