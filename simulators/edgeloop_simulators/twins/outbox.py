"""An outbox in memory: the twin of the agent's SQLite outbox, light enough for 10,000 of them.

Invariants: the same numbering, bound, aggregation and counts as the real one; `restart` begins a
new epoch with what a device would find on its disk.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from edgeloop_agent.core.reduction import DEFAULT_LIMITS, OutboxLimits, Tally
from edgeloop_agent.ports import EpochCounts, HeldRecords, OutboxTotals
from edgeloop_agent.shell.outbox import check_sizes, reduced_of, totals_of
from edgeloop_agent.shell.outbox_reducer import OutboxReducer
from edgeloop_agent.shell.stored_row import Position, StoredRow


@dataclass(slots=True)
class _Epoch:
    """`number`: in the order of boots."""

    name: str
    number: int
    appended: int = 0
    acked: int = 0
    records: deque[tuple[int, bytes]] = field(default_factory=deque)
    tally: Tally = field(default_factory=Tally)


class MemoryOutbox:
    """`epoch` is 16 hexadecimal digits; give each start of a device another one."""

    def __init__(self, epoch: str, max_bytes: int, limits: OutboxLimits = DEFAULT_LIMITS) -> None:
        self.epoch = epoch
        self._max_bytes = max_bytes
        self._limits = limits
        self._held = self._bytes = 0
        self._tally = Tally()
        self._budget_left_bytes: float | None = None
        self._epochs: dict[str, _Epoch] = {epoch: _Epoch(epoch, 1)}
        self._reducer: OutboxReducer | None = None

    def restart(self, epoch: str) -> None:
        """The device booted again: the records stay, the numbering begins anew."""
        self.epoch = epoch
        self._epochs[epoch] = _Epoch(epoch, len(self._epochs) + 1)
        self._reducer = None

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        check_sizes(documents)
        current = self._epochs[self.epoch]
        for document in documents:
            current.appended += 1
            current.records.append((current.appended, document))
            self._held += 1
            self._bytes += len(document)
        if budget_left_bytes is not None:
            self._budget_left_bytes = budget_left_bytes
        return self._make_room() if self._bytes > self._max_bytes else 0

    def next_batch(self) -> HeldRecords | None:
        for epoch in self._epochs.values():
            if epoch.records:
                return self._batch(epoch)
        return None

    def acknowledge(self, epoch: str, through: int) -> int:
        known = self._epochs.get(epoch)
        if known is None:
            return 0
        upto = min(through, known.appended)
        gone = 0
        while known.records and known.records[0][0] <= upto:
            self._bytes -= len(known.records.popleft()[1])
            gone += 1
        self._held -= gone
        known.acked = max(known.acked, upto)
        return gone

    def load_budget(self) -> float | None:
        return self._budget_left_bytes

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        return tuple(map(_counts, list(self._epochs.values())[-newest:]))

    @property
    def is_empty(self) -> bool:
        """For those who look at thousands."""
        return not self._held

    def totals(self) -> OutboxTotals:
        return totals_of(self._held, self._bytes, self._tally)

    def close(self) -> None:
        """Nothing is open."""

    def rows_from(self, position: Position) -> Iterator[StoredRow]:
        """For the reducer, as what follows."""
        boot, sequence = position
        for epoch in list(self._epochs.values()):
            if epoch.number < boot:
                continue
            for number, document in epoch.records:
                if epoch.number > boot or number >= sequence:
                    yield StoredRow(epoch.number, number, document)

    def replace(self, boot: int, through: int, old: Sequence[int], new: Sequence[bytes]) -> None:
        epoch, gone = self._numbered(boot), set(old)
        first = through - len(new) + 1
        kept = [record for record in epoch.records if record[0] not in gone]
        kept += [(first + place, document) for place, document in enumerate(new)]
        epoch.records = deque(sorted(kept))

    def count(self, boot: int, tally: Tally) -> None:
        self._numbered(boot).tally.add(tally)

    def _numbered(self, boot: int) -> _Epoch:
        return next(epoch for epoch in self._epochs.values() if epoch.number == boot)

    def _make_room(self) -> int:
        if self._reducer is None:
            self._reducer = OutboxReducer(self._max_bytes, self._limits)
        freed = self._reducer.free(self, self._bytes - self._max_bytes)
        self._held -= freed.rows.total()
        self._bytes -= freed.size_bytes
        self._tally.add(freed.tally)
        return freed.tally.dropped

    def _batch(self, epoch: _Epoch) -> HeldRecords:
        base = epoch.records[0][0]
        documents: list[bytes] = []
        total = 0
        for number, document in islice(epoch.records, self._limits.batch_records_max):
            total += len(document)
            if number != base + len(documents):
                break
            if documents and total > self._limits.batch_bytes_max:
                break
            documents.append(document)
        tally = epoch.tally
        reduced = reduced_of(tally.sketches_shed, tally.samples_dropped, tally.events_dropped)
        return HeldRecords(epoch.name, base, tuple(documents), reduced)


def _counts(epoch: _Epoch) -> EpochCounts:
    tally = epoch.tally
    return EpochCounts(
        epoch=epoch.name,
        appended=epoch.appended,
        dropped=tally.dropped,
        acked=epoch.acked,
        held=len(epoch.records),
        merged=tally.windows_merged,
        sketches_shed=tally.sketches_shed,
        samples_dropped=tally.samples_dropped,
        events_dropped=tally.events_dropped,
    )
