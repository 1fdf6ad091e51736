"""The outbox on disk: SQLite in WAL mode, synchronous, one writer.

Invariants: what `append` returned for survives a power cut; sequences of an epoch start at 1 and
have no holes; only an acknowledgement or the byte bound removes a record, and the bound counts what
it removes: the oldest, but an epoch's last only after all others; what is held of an epoch has no
holes, and a record that the medium damaged has a stand-in; the counts of the newest EPOCHS_KEPT_MAX
epochs stay. A disk that is full or failing raises OutboxUnavailableError and changes nothing; a
file that is no database is kept aside.
"""

import logging
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from edgeloop_agent.errors import OutboxUnavailableError, RecordTooLargeError
from edgeloop_agent.ports import EpochCounts, HeldRecords, OutboxTotals
from edgeloop_protocol.limits import (
    BATCH_RECORDS_MAX,
    BATCH_TARGET_BYTES,
    KIB,
    PAYLOAD_MAX_BYTES,
)
from edgeloop_protocol.messages import DeviceEvent

logger = logging.getLogger(__name__)

FILE_NAME: Final = "outbox.sqlite"
RECORD_MAX_BYTES: Final = PAYLOAD_MAX_BYTES - 1 * KIB
"""What is left of a message beside the batch's own keys."""
EPOCHS_KEPT_MAX: Final = 10_000
DAMAGED: Final = (
    DeviceEvent(at=0.0, name="record_damaged", detail="the disk changed what was stored")
    .model_dump_json()
    .encode()
)
"""Sent in the place of a record that can no longer be read: it would hold up all behind it."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS epochs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL UNIQUE,
    appended INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    acked INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS records (
    epoch_id INTEGER NOT NULL REFERENCES epochs (id),
    sequence INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (epoch_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budget (id INTEGER PRIMARY KEY CHECK (id = 1), left_bytes REAL NOT NULL);
"""
_OLDEST: Final = (
    "SELECT epoch_id, sequence, LENGTH(document) FROM records ORDER BY epoch_id, sequence LIMIT 1"
)
_OLDEST_BUT_NO_LAST: Final = (
    "SELECT epoch_id, sequence, LENGTH(document) FROM records WHERE EXISTS (SELECT 1 FROM records "
    "AS later WHERE later.epoch_id = records.epoch_id AND later.sequence > records.sequence) "
    "ORDER BY epoch_id, sequence LIMIT 1"
)


def new_epoch() -> str:
    return secrets.token_hex(8)


class SqliteOutbox:
    """Opening it begins a new epoch. Used from the supervisor's thread only."""

    def __init__(
        self, database: sqlite3.Connection, epoch: str, max_bytes: int, problem: str = ""
    ) -> None:
        """`epoch`: 16 hexadecimal digits, never used before on this device."""
        self._database = database
        self._max_bytes = max_bytes
        self.epoch = epoch
        self.problem = problem
        """What was wrong with the file that was found, in words."""
        with self._transaction():
            self._epoch_id = self._database.execute(
                "INSERT INTO epochs (epoch) VALUES (?)", (self.epoch,)
            ).lastrowid
            self._forget_ancient_epochs()
        ((self._held, self._bytes),) = self._query(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(document)), 0) FROM records"
        )
        ((self._dropped,),) = self._query("SELECT COALESCE(SUM(dropped), 0) FROM epochs")
        self._next = 1

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        check_sizes(documents)
        numbered = [
            (self._epoch_id, self._next + place, document)
            for place, document in enumerate(documents)
        ]
        added = sum(map(len, documents))
        with self._transaction():
            self._database.executemany("INSERT INTO records VALUES (?, ?, ?)", numbered)
            self._database.execute(
                "UPDATE epochs SET appended = appended + ? WHERE id = ?",
                (len(numbered), self._epoch_id),
            )
            if budget_left_bytes is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO budget VALUES (1, ?)", (budget_left_bytes,)
                )
            dropped, freed = self._drop_down_to(self._max_bytes - self._bytes - added)
        self._next += len(numbered)
        self._held += len(numbered) - dropped
        self._dropped += dropped
        self._bytes += added - freed
        return dropped

    def next_batch(self) -> HeldRecords | None:
        rows = self._query(
            "SELECT epoch_id, sequence, document FROM records ORDER BY epoch_id, sequence LIMIT ?",
            (BATCH_RECORDS_MAX,),
        )
        if not rows:
            return None
        first_epoch_id, base, _ = rows[0]
        documents: list[bytes] = []
        size = 0
        for epoch_id, _, document in rows:
            size += len(document)
            if epoch_id != first_epoch_id or (documents and size > BATCH_TARGET_BYTES):
                break
            documents.append(document if _is_whole(document) else DAMAGED)
        ((epoch,),) = self._query("SELECT epoch FROM epochs WHERE id = ?", (first_epoch_id,))
        return HeldRecords(epoch, base, tuple(documents))

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
        self._held -= gone
        return gone

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        rows = self._query(
            "SELECT epoch, appended, dropped, acked, COALESCE((SELECT appended - MIN(sequence) + 1 "
            "FROM records WHERE epoch_id = epochs.id), 0) FROM epochs ORDER BY id DESC LIMIT ?",
            (newest,),
        )
        return tuple(EpochCounts(*row) for row in reversed(rows))

    def totals(self) -> OutboxTotals:
        return OutboxTotals(held=self._held, held_bytes=self._bytes, dropped=self._dropped)

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

    def _query(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._database.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise OutboxUnavailableError(f"the outbox: {error}") from error

    def _drop_down_to(self, room: int) -> tuple[int, int]:
        """Delete records until `room` is not negative: (records, bytes) dropped."""
        dropped = freed = 0
        while room + freed < 0:
            row = (
                self._database.execute(_OLDEST_BUT_NO_LAST).fetchone()
                or self._database.execute(_OLDEST).fetchone()
            )
            if row is None:
                break
            self._database.execute(
                "DELETE FROM records WHERE epoch_id = ? AND sequence = ?", row[:2]
            )
            self._database.execute("UPDATE epochs SET dropped = dropped + 1 WHERE id = ?", row[:1])
            dropped, freed = dropped + 1, freed + int(row[2])
        return dropped, freed

    def _forget_ancient_epochs(self) -> None:
        self._database.execute(
            "DELETE FROM epochs WHERE id <= (SELECT MAX(id) FROM epochs) - ? "
            "AND NOT EXISTS (SELECT 1 FROM records WHERE epoch_id = epochs.id)",
            (EPOCHS_KEPT_MAX,),
        )


def open_outbox(state_dir: Path, max_bytes: int, epoch: str = "") -> SqliteOutbox:
    """`epoch`: of this boot, by default a new one. Raises OutboxUnavailableError when there can be
    none."""
    problem = ""
    try:
        database = _open(state_dir / FILE_NAME)
    except sqlite3.OperationalError as error:
        raise OutboxUnavailableError(f"cannot open the outbox in {state_dir}: {error}") from error
    except sqlite3.DatabaseError as error:
        kept = _keep_aside(state_dir)
        problem = f"the outbox could not be read and is kept as {kept}: {error}"
        logger.error("%s", problem)
        database = _open(state_dir / FILE_NAME)
    try:
        return SqliteOutbox(database, epoch or new_epoch(), max_bytes, problem)
    except OutboxUnavailableError:
        database.close()
        raise


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        make_schema(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def make_schema(database: sqlite3.Connection) -> None:
    """Idempotent; the connection is in autocommit (`isolation_level=None`)."""
    database.executescript(_SCHEMA)


def _keep_aside(state_dir: Path) -> str:
    number = 1
    while (aside := state_dir / f"outbox.corrupt-{number}").exists():
        number += 1
    (state_dir / FILE_NAME).replace(aside)
    for suffix in ("-wal", "-shm"):
        (state_dir / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    return aside.name


def _is_whole(document: bytes) -> bool:
    try:
        from_json(document)
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
