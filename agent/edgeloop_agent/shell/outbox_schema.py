"""The tables of the outbox, and how those of an older agent become them.

Invariant: an older agent can go on with what this one leaves: columns are only added, each with a
default.
"""

import sqlite3
from typing import Final

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
_ADDED: Final = ("merged", "sketches_shed", "samples_dropped", "events_dropped")
"""To `epochs`, since its first version."""


def make_schema(database: sqlite3.Connection) -> None:
    """Idempotent; the connection is in autocommit (`isolation_level=None`)."""
    database.executescript(_SCHEMA)
    present = {row[1] for row in database.execute("PRAGMA table_info(epochs)")}
    for column in _ADDED:
        if column not in present:
            database.execute(f"ALTER TABLE epochs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
