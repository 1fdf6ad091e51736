"""The outbox's file: opened, made, and kept aside when it is no database.

Invariant: what an opened outbox says is stored has been synced (`synchronous=FULL`).
"""

import logging
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from edgeloop_agent.errors import OutboxUnavailableError
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_agent.shell.outbox_schema import make_schema

logger = logging.getLogger(__name__)

FILE_NAME: Final = "outbox.sqlite"
CACHE_KIB: Final = 256
"""Of pages that SQLite keeps in memory; by default it comes to keep 2,000."""


def new_epoch() -> str:
    return secrets.token_hex(8)


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
        database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        make_schema(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _keep_aside(state_dir: Path) -> str:
    number = 1
    while (aside := state_dir / f"outbox.corrupt-{number}").exists():
        number += 1
    (state_dir / FILE_NAME).replace(aside)
    for suffix in ("-wal", "-shm"):
        (state_dir / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    return aside.name
