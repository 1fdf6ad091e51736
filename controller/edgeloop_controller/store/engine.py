"""The database: one engine, two kinds of transaction.

Invariants: `writing()` transactions of this process never overlap (one lock, one SQLite writer),
and are not nested; `reading()` sees one snapshot and cannot block a writer (WAL). The first that a
request of the API writes holds its entry of the audit log (store.audit).

SQLite runs with `synchronous=FULL`: an acknowledgement empties a device's outbox, so what is
committed must survive a power cut, not only a kill -9; WAL with NORMAL may lose the last commits.
Batching pays for the fsync.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import Session

from edgeloop_controller.store import audit
from edgeloop_controller.store.json_text import decode_column, encode_column
from edgeloop_controller.store.migrate import upgrade
from edgeloop_controller.store.prepared import translated

BUSY_TIMEOUT_MS: Final = 30_000
# Above the 40 threads that serve HTTP and those that the scheduler and ingest use.
CONNECTIONS_KEPT: Final = 8
CONNECTIONS_MAX: Final = 64
_WRITE_OPTION: Final = "edgeloop_write"
_shared: dict[str, Engine] = {}
_THROWN_AWAY: Final = ("journal_mode=MEMORY", "synchronous=OFF")


class Database:
    """`Database(url)` opens and migrates; `close()` when done.

    For simulated worlds, which throw it away: `migrate=False` for a copy of one that is at this
    release's schema, `durable=False` for one that need not survive a power cut.
    """

    def __init__(self, url: str, *, migrate: bool = True, durable: bool = True) -> None:
        self._engine = _create_engine(url, durable)
        self._writer_engine = self._engine.execution_options(**{_WRITE_OPTION: True})
        self._write_lock = threading.Lock()
        if migrate:
            upgrade(self._writer_engine)

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A snapshot; whatever is changed in it is rolled back."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back on an exception."""
        with (
            self._write_lock,
            Session(self._writer_engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
            audited = audit.write_open(session)
        if audited is not None:
            audited.recorded = True

    def close(self) -> None:
        self._engine.dispose()


def _create_engine(url: str, durable: bool) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(
            url,
            pool_pre_ping=True,
            json_serializer=encode_column,
            json_deserializer=decode_column,
        )
    engine = create_engine(
        url,
        json_serializer=encode_column,
        json_deserializer=decode_column,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
        pool_size=CONNECTIONS_KEPT,
        max_overflow=CONNECTIONS_MAX - CONNECTIONS_KEPT,
    )
    pragmas = ("journal_mode=WAL", "synchronous=FULL") if durable else _THROWN_AWAY
    event.listen(engine, "connect", partial(_configure_sqlite, pragmas=pragmas))
    event.listen(engine, "begin", _begin_sqlite)
    return engine if durable else _sharing(engine)


def _sharing(engine: Engine) -> Engine:
    """Of databases that are thrown away a process opens thousands, and would compile each
    statement anew for each: they share a dialect, by which compiled statements are known, and
    what was compiled. SQLAlchemy has no word for that."""
    first = _shared.setdefault("engine", engine)
    engine.dialect = first.dialect
    engine.pool._dialect = first.dialect
    engine._compiled_cache = first._compiled_cache
    return engine


def _configure_sqlite(
    connection: sqlite3.Connection, _record: Any, pragmas: tuple[str, ...]
) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    for pragma in (*pragmas, "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails with SQLITE_BUSY_SNAPSHOT,
    # which no busy timeout waits for; a writer therefore takes the write lock at its start.
    writes = connection.get_execution_options().get(_WRITE_OPTION, False)
    driver = connection.connection.driver_connection
    assert driver is not None
    text = "BEGIN IMMEDIATE" if writes else "BEGIN"
    try:
        driver.execute(text).close()
    except sqlite3.Error as error:
        raise translated(error, connection, text) from error
