"""The database: migrations, pragmas, and writers that wait for each other."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from edgeloop_controller.errors import StartError
from edgeloop_controller.store import devices, events, rollouts, telemetry
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Base


def test_migrations_build_what_the_tables_say(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_database_is_opened_again(database: Database, tmp_path: Path) -> None:
    with database.writing() as session:
        events.add(session, 1.0, "test.happened", "x")
    database.close()
    again = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    with again.reading() as session:
        assert [e.kind for e in events.after(session, 0, None, 10)] == ["test.happened"]
    again.close()


def test_a_newer_schema_is_refused(database: Database, tmp_path: Path) -> None:
    with database.engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    database.close()
    with pytest.raises(StartError, match="schema 9999"):
        Database(f"sqlite:///{tmp_path / 'db.sqlite'}")


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
def test_what_is_committed_survives_a_power_cut(
    database: Database, pragma: str, value: object
) -> None:
    with database.engine.connect() as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_an_exception_leaves_nothing_written(database: Database) -> None:
    def fail() -> None:
        with database.writing() as session:
            events.add(session, 1.0, "test.happened", "x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.reading() as session:
        assert events.after(session, 0, None, 10) == []


def test_writers_wait_and_readers_do_not(database: Database) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            with database.writing() as session:
                before = len(events.after(session, 0, None, 1000))
                events.add(session, 1.0, "test.counted", str(number), {"before": before})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    with database.reading() as session:
        events.after(session, 0, None, 10)
    for thread in threads:
        thread.join()
    with database.reading() as session:
        seen = [e.data["before"] for e in events.after(session, 0, None, 1000)]
    assert seen == list(range(80))


def test_what_each_batch_and_tick_asks_scans_no_table(database: Database) -> None:
    """A fleet grows, and so do its boots: what is asked all the time must not grow with them."""
    asked: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    with database.reading() as session:
        driver = session.connection().connection.driver_connection
        driver.set_trace_callback(note)
        telemetry.load_cursors(session, [("d1", "a" * 16), ("d2", "b" * 16)])
        devices.behind(session)
        devices.last_change(session)
        list(devices.desired_of(session, ["d1", "d2"]))
        rollouts.silent_about_offer(session, 1.0)
        driver.set_trace_callback(None)
        for statement in asked:
            plan = driver.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            steps = [step[-1] for step in plan]
            assert not [s for s in steps if s.startswith("SCAN") and "INDEX" not in s], statement
    assert len(asked) == 5, asked
