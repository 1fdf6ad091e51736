"""The outbox on disk: SQLite in WAL mode, synchronous, one writer.

Invariants: what `append` returned for survives a power cut, as it was or merged with others;
sequences of an epoch start at 1; only an acknowledgement or the byte bound removes a record, and
the bound counts what it removes (ADR 0019); what may have been sent is not merged and keeps its
number; a record that the medium damaged has a stand-in; the counts of the newest EPOCHS_KEPT_MAX
epochs stay. A disk that is full or failing raises OutboxUnavailableError and changes nothing.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pydantic_core import from_json

from edgeloop_agent.core.reduction import (
    DEFAULT_LIMITS,
    RECORD_MAX_BYTES,
    OutboxLimits,
    Tally,
)
from edgeloop_agent.errors import OutboxUnavailableError, RecordTooLargeError
from edgeloop_agent.ports import EpochCounts, HeldRecords, OutboxTotals
from edgeloop_agent.shell.outbox_reducer import Freed, OutboxReducer
from edgeloop_agent.shell.stored_row import Position, StoredRow
from edgeloop_protocol.messages import DeviceEvent, Reduced

EPOCHS_KEPT_MAX: Final = 10_000
DAMAGED: Final = (
    DeviceEvent(at=0.0, name="record_damaged", detail="the disk changed what was stored")
    .model_dump_json()
    .encode()
)
"""Sent in the place of a record that can no longer be read: it would hold up all behind it."""

_COUNTED: Final = (
    *("epoch", "appended", "dropped", "acked"),
    *("merged", "sketches_shed", "samples_dropped", "events_dropped"),
)
"""Columns that are fields of EpochCounts."""


class SqliteOutbox:
    """Opening it begins a new epoch. Used from the supervisor's thread only."""

    def __init__(
        self,
        database: sqlite3.Connection,
        epoch: str,
        max_bytes: int,
        problem: str = "",
        limits: OutboxLimits = DEFAULT_LIMITS,
    ) -> None:
        """`epoch`: 16 hexadecimal digits, never used before on this device."""
        self._database = database
        self._max_bytes = max_bytes
        self._limits = limits
        self._reducer = OutboxReducer(max_bytes, limits)
        self.epoch = epoch
        self.problem = problem
        """What was wrong with the file that was found, in words."""
        with self._transaction():
            self._database.execute("INSERT INTO epochs (epoch) VALUES (?)", (self.epoch,))
            (self._epoch_id,) = self._database.execute("SELECT last_insert_rowid()").fetchone()
            self._forget_ancient_epochs()
        self._held = Counter(
            dict(self._query("SELECT epoch_id, COUNT(*) FROM records GROUP BY epoch_id"))
        )
        ((self._bytes,),) = self._query("SELECT COALESCE(SUM(LENGTH(document)), 0) FROM records")
        (counts,) = self._query(
            "SELECT TOTAL(merged), TOTAL(sketches_shed), TOTAL(samples_dropped), "
            "TOTAL(events_dropped), TOTAL(dropped) FROM epochs"
        )
        merged, sketches, samples, events, dropped = map(int, counts)
        self._tally = Tally(merged, sketches, samples, events, dropped - samples - events)
        self._next = 1

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        check_sizes(documents)
        numbered = [
            (self._epoch_id, self._next + place, document)
            for place, document in enumerate(documents)
        ]
        added = sum(map(len, documents))
        with self._reducer_in_step(), self._transaction():
            self._database.executemany("INSERT INTO records VALUES (?, ?, ?)", numbered)
            self._database.execute(
                "UPDATE epochs SET appended = appended + ? WHERE id = ?",
                (len(numbered), self._epoch_id),
            )
            if budget_left_bytes is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO budget VALUES (1, ?)", (budget_left_bytes,)
                )
            freed = self._drop_down_to(self._max_bytes - self._bytes - added)
        self._next += len(numbered)
        self._held[self._epoch_id] += len(numbered)
        self._bytes += added - freed.size_bytes
        if freed.size_bytes:
            self._held.subtract(freed.rows)
            self._tally.add(freed.tally)
        return freed.tally.dropped

    def next_batch(self) -> HeldRecords | None:
        rows = self._query(
            "SELECT epoch_id, sequence, document FROM records ORDER BY epoch_id, sequence LIMIT ?",
            (self._limits.batch_records_max,),
        )
        if not rows:
            return None
        first_epoch_id, base, _ = rows[0]
        documents: list[bytes] = []
        size = 0
        for epoch_id, sequence, document in rows:
            size += len(document)
            if (epoch_id, sequence) != (first_epoch_id, base + len(documents)):
                break
            if documents and size > self._limits.batch_bytes_max:
                break
            documents.append(document if _is_whole(document) else DAMAGED)
        ((epoch, *counts),) = self._query(
            "SELECT epoch, sketches_shed, samples_dropped, events_dropped FROM epochs WHERE id = ?",
            (first_epoch_id,),
        )
        return HeldRecords(epoch, base, tuple(documents), reduced_of(*counts))

    def acknowledge(self, epoch: str, through: int) -> int:
        with self._transaction():
            row = self._database.execute(
                "SELECT id, appended FROM epochs WHERE epoch = ?", (epoch,)
            ).fetchone()
            if row is None:
                return 0
            upto = min(through, int(row[1]))  # nobody can have what was never appended
            scope = (row[0], upto)
            (freed,) = self._database.execute(
                "SELECT COALESCE(SUM(LENGTH(document)), 0) FROM records "
                "WHERE epoch_id = ? AND sequence <= ?",
                scope,
            ).fetchone()
            gone = self._database.execute(
                "DELETE FROM records WHERE epoch_id = ? AND sequence <= ?", scope
            ).rowcount
            self._database.execute(
                "UPDATE epochs SET acked = MAX(acked, ?) WHERE id = ?", (upto, row[0])
            )
        self._bytes -= int(freed)
        self._held[row[0]] -= gone
        return gone

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        rows = self._query(
            f"SELECT id, {', '.join(_COUNTED)} FROM epochs ORDER BY id DESC LIMIT ?",  # noqa: S608
            (newest,),
        )
        return tuple(
            EpochCounts(held=self._held[epoch_id], **dict(zip(_COUNTED, row, strict=True)))
            for epoch_id, *row in reversed(rows)
        )

    def totals(self) -> OutboxTotals:
        return totals_of(self._held.total(), self._bytes, self._tally)

    def load_budget(self) -> float | None:
        rows = self._query("SELECT left_bytes FROM budget")
        return float(rows[0][0]) if rows else None

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit, or roll back and raise OutboxUnavailableError."""
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise OutboxUnavailableError(f"the outbox: {error}") from error

    @contextmanager
    def _reducer_in_step(self) -> Iterator[None]:
        """What was rolled back, it has not seen."""
        try:
            yield
        except OutboxUnavailableError:
            self._reducer = OutboxReducer(self._max_bytes, self._limits)
            raise

    def _query(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._database.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise OutboxUnavailableError(f"the outbox: {error}") from error

    def rows_from(self, position: Position) -> Iterator[StoredRow]:
        """For the reducer, as what follows; within a transaction."""
        rows = self._database.execute(
            "SELECT epoch_id, sequence, document FROM records WHERE (epoch_id, sequence) >= (?, ?) "
            "ORDER BY epoch_id, sequence",
            position,
        )
        return map(StoredRow._make, rows)

    def replace(self, boot: int, through: int, old: Sequence[int], new: Sequence[bytes]) -> None:
        self._database.executemany(
            "DELETE FROM records WHERE epoch_id = ? AND sequence = ?",
            [(boot, sequence) for sequence in old],
        )
        first = through - len(new) + 1
        self._database.executemany(
            "INSERT INTO records VALUES (?, ?, ?)",
            [(boot, first + place, document) for place, document in enumerate(new)],
        )

    def count(self, boot: int, tally: Tally) -> None:
        self._database.execute(
            "UPDATE epochs SET dropped = dropped + ?, merged = merged + ?, sketches_shed = "
            "sketches_shed + ?, samples_dropped = samples_dropped + ?, events_dropped = "
            "events_dropped + ? WHERE id = ?",
            (
                tally.dropped,
                tally.windows_merged,
                tally.sketches_shed,
                tally.samples_dropped,
                tally.events_dropped,
                boot,
            ),
        )

    def _drop_down_to(self, room: int) -> Freed:
        """Give up records until `room` is not negative."""
        return self._reducer.free(self, -room) if room < 0 else Freed()

    def _forget_ancient_epochs(self) -> None:
        self._database.execute(
            "DELETE FROM epochs WHERE id <= (SELECT MAX(id) FROM epochs) - ? "
            "AND NOT EXISTS (SELECT 1 FROM records WHERE epoch_id = epochs.id)",
            (EPOCHS_KEPT_MAX,),
        )


def totals_of(held: int, held_bytes: int, tally: Tally) -> OutboxTotals:
    return OutboxTotals(
        held=held,
        held_bytes=held_bytes,
        dropped=tally.dropped,
        merged=tally.windows_merged,
        sketches_shed=tally.sketches_shed,
        samples_dropped=tally.samples_dropped,
        events_dropped=tally.events_dropped,
    )


def reduced_of(sketches_shed: int, samples_dropped: int, events_dropped: int) -> Reduced | None:
    """None: nothing to tell."""
    if not (sketches_shed or samples_dropped or events_dropped):
        return None
    return Reduced(
        sketches_shed=sketches_shed,
        samples_dropped=samples_dropped,
        events_dropped=events_dropped,
    )


def _is_whole(document: bytes) -> bool:
    try:
        from_json(document, cache_strings="none")
    except ValueError:
        return False
    return True


def check_sizes(documents: Sequence[bytes]) -> None:
    """Raises RecordTooLargeError for one that could not travel in any message."""
    for document in documents:
        if len(document) > RECORD_MAX_BYTES:
            raise RecordTooLargeError(
                f"a record of {len(document)} bytes; the limit is {RECORD_MAX_BYTES}"
            )
