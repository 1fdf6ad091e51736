"""An outbox in memory: the twin of the agent's SQLite outbox, light enough for 10,000 of them.

Invariants: the same numbering, bound and counts as the real one; `restart` begins a new epoch with
what a device would find on its disk.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from edgeloop_agent.ports import EpochCounts, HeldRecords, OutboxTotals
from edgeloop_agent.shell.outbox import check_sizes
from edgeloop_protocol.limits import BATCH_RECORDS_MAX, BATCH_TARGET_BYTES


@dataclass(slots=True)
class _Epoch:
    appended: int = 0
    dropped: int = 0
    acked: int = 0
    records: deque[tuple[int, bytes]] = field(default_factory=deque)


class MemoryOutbox:
    """`epoch` is 16 hexadecimal digits; give each start of a device another one."""

    def __init__(self, epoch: str, max_bytes: int) -> None:
        self.epoch = epoch
        self._max_bytes = max_bytes
        self._held = self._bytes = self._dropped = 0
        self._budget_left_bytes: float | None = None
        self._epochs: dict[str, _Epoch] = {epoch: _Epoch()}

    def restart(self, epoch: str) -> None:
        """The device booted again: the records stay, the numbering begins anew."""
        self.epoch = epoch
        self._epochs[epoch] = _Epoch()

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
        return self._drop(keep=1) + self._drop(keep=0)

    def next_batch(self) -> HeldRecords | None:
        for name, epoch in self._epochs.items():
            if epoch.records:
                return _batch(name, epoch)
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
        return tuple(
            EpochCounts(name, e.appended, e.dropped, e.acked, len(e.records))
            for name, e in list(self._epochs.items())[-newest:]
        )

    @property
    def is_empty(self) -> bool:
        """For those who look at thousands."""
        return not self._held

    def totals(self) -> OutboxTotals:
        return OutboxTotals(held=self._held, held_bytes=self._bytes, dropped=self._dropped)

    def close(self) -> None:
        """Nothing is open."""

    def _drop(self, keep: int) -> int:
        """Of each epoch the last `keep` stay."""
        if self._bytes <= self._max_bytes:
            return 0
        dropped = 0
        for epoch in self._epochs.values():
            while self._bytes > self._max_bytes and len(epoch.records) > keep:
                self._bytes -= len(epoch.records.popleft()[1])
                epoch.dropped += 1
                dropped += 1
        self._held -= dropped
        self._dropped += dropped
        return dropped


def _batch(name: str, epoch: _Epoch) -> HeldRecords:
    documents: list[bytes] = []
    total = 0
    for _, document in islice(epoch.records, BATCH_RECORDS_MAX):
        total += len(document)
        if documents and total > BATCH_TARGET_BYTES:
            break
        documents.append(document)
    return HeldRecords(name, epoch.records[0][0], tuple(documents))
