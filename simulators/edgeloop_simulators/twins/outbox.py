"""An outbox in memory: the twin of the agent's SQLite outbox, light enough for 10,000 of them.

Invariants: the same numbering, bound and counts as the real one; `restart` begins a new epoch with
what a device would find on its disk.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from edgeloop_agent.errors import RecordTooLargeError
from edgeloop_agent.ports import EpochCounts, OutboxTotals
from edgeloop_protocol.limits import (
    BATCH_RECORDS_MAX,
    BATCH_TARGET_BYTES,
    KIB,
    PAYLOAD_MAX_BYTES,
)
from edgeloop_protocol.messages import Record, RecordBody, TelemetryBatch

RECORD_MAX_BYTES = PAYLOAD_MAX_BYTES - 1 * KIB


@dataclass(slots=True)
class _Epoch:
    appended: int = 0
    dropped: int = 0
    acked: int = 0
    records: deque[tuple[int, int, RecordBody]] = field(default_factory=deque)


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

    def append(self, bodies: Sequence[RecordBody], budget_left_bytes: float | None = None) -> int:
        sized = [(len(body.model_dump_json()), body) for body in bodies]
        for size, body in sized:
            if size > RECORD_MAX_BYTES:
                raise RecordTooLargeError(
                    f"a {type(body).__name__} of {size} bytes; the limit is {RECORD_MAX_BYTES}"
                )
        current = self._epochs[self.epoch]
        for size, body in sized:
            current.appended += 1
            current.records.append((current.appended, size, body))
            self._held += 1
            self._bytes += size
        if budget_left_bytes is not None:
            self._budget_left_bytes = budget_left_bytes
        return self._drop(keep=1) + self._drop(keep=0)

    def next_batch(self) -> TelemetryBatch | None:
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
            self._bytes -= known.records.popleft()[1]
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
                self._bytes -= epoch.records.popleft()[1]
                epoch.dropped += 1
                dropped += 1
        self._held -= dropped
        self._dropped += dropped
        return dropped


def _batch(name: str, epoch: _Epoch) -> TelemetryBatch:
    records: list[Record] = []
    total = 0
    for sequence, size, body in islice(epoch.records, BATCH_RECORDS_MAX):
        total += size
        if records and total > BATCH_TARGET_BYTES:
            break
        records.append(Record(sequence=sequence, body=body))
    return TelemetryBatch(epoch=name, base=records[0].sequence, records=tuple(records))
