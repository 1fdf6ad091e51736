"""Prepared statements say what SQLAlchemy itself would say, and fail as it does."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from edgeloop_controller.store import engine, prepared
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import Assignment, Device, table_of

DEVICE = table_of(Device)
NAMES = [
    name
    for name in DEVICE.c.keys()  # noqa: SIM118 - a collection of columns, no dictionary
    if name != "quarantine"
]
LABELS = {"ring": "canary", "share": 0.5}


@pytest.fixture(params=["the driver", "SQLAlchemy"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who runs it: as for any database but SQLite, or as for SQLite."""
    if request.param == "SQLAlchemy":
        monkeypatch.setattr(prepared, "_SQLITE", ("no", "dialect"))
    return str(request.param)


def device(name: str, online: bool = True) -> dict[str, object]:
    return {
        "id": name,
        "first_seen_at": 1.0,
        "last_seen_at": 2.0,
        "online": online,
        "epoch": "e" * 16,
        "state_sequence": 1,
        "revision_seen": 0,
        "desired_revision": 0,
        "desired": [],
        "agent_labels": LABELS,
        "labels": {},
        "inventory": {},
        "bytes_up": 0,
        "change": 1,
        "nobody_asked_for_this": 1,
    }


def joined(session: Session, *names: str) -> None:
    statement = Prepared(insert(DEVICE).values({name: bindparam(name) for name in NAMES}))
    statement.run(session, [device(name, name != "d3") for name in names])


@pytest.mark.usefixtures("by")
def test_values_go_in_and_come_out_as_columns_have_them(database: Database) -> None:
    found = Prepared(
        select(DEVICE.c.id, DEVICE.c.online, DEVICE.c.agent_labels)
        .where(DEVICE.c.id.in_(bindparam("ids", expanding=True)), DEVICE.c.state_sequence > 0)
        .order_by(DEVICE.c.id)
    )
    with database.writing() as session:
        joined(session, "d1", "d2", "d3", "d4", "d5")
        assert session.get(Device, "d1").quarantine == ""  # the default of what was not named
    with database.reading() as session:
        for ids in ([], ["d1"], ["d1", "d3"], ["d1", "d2", "d3"], ["d3", "d5", "none", "d1", "d2"]):
            expected = [(name, name != "d3", LABELS) for name in sorted({*ids} - {"none"})]
            assert list(found.rows(session, ids=ids)) == expected
            assert found.scalar(session, ids=ids) == (expected[0][0] if expected else None)


@pytest.mark.usefixtures("by")
def test_it_sees_and_is_seen_by_the_session(database: Database) -> None:
    seen = Prepared(select(DEVICE.c.epoch).where(DEVICE.c.id == bindparam("id")))
    say = Prepared(
        update(DEVICE).where(DEVICE.c.id == bindparam("key")).values(epoch=bindparam("epoch"))
    )
    with database.writing() as session:
        joined(session, "d1")
        session.get(Device, "d1").epoch = "f" * 16
        assert seen.scalar(session, id="d1") == "f" * 16, "the session's own is written first"
        say.run(session, [{"key": "d1", "epoch": "a" * 16}])
        session.expire_all()
        assert session.get(Device, "d1").epoch == "a" * 16


def _twice(session: Session) -> None:
    joined(session, "d1", "d1")


def _without_device(session: Session) -> None:
    values = {"device_id": "none", "slot": "main", "probation": {}, "reason": ""}
    insertion = insert(table_of(Assignment)).values({name: bindparam(name) for name in values})
    Prepared(insertion).run(session, [values])


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("breach", [_twice, _without_device])
def test_what_the_driver_raises_is_said_as_sqlalchemy_says_it(
    database: Database, breach: Callable[[Session], None]
) -> None:
    with pytest.raises(IntegrityError, match="constraint failed"), database.writing() as session:
        breach(session)
    with database.reading() as session:
        assert session.get(Device, "d1") is None


def test_a_database_that_is_locked_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest keeps what it cannot write now, by this exception."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 10)
    path = tmp_path / "locked.sqlite"
    database, other = Database(f"sqlite:///{path}"), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), database.writing() as session:
        joined(session, "d1")
    other.close()
    database.close()


def test_a_default_that_is_made_for_each_row_must_be_named(database: Database) -> None:
    values = {name: bindparam(name) for name in NAMES if name != "desired"}
    with database.writing() as session, pytest.raises(TypeError, match="must name it"):
        Prepared(insert(DEVICE).values(values)).run(session, [device("d1")])
