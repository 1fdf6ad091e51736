"""Following the event log: no gap and no repetition, whatever the controller does meanwhile."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop_controller.api.app import create_app
from edgeloop_controller.cli.events import PAGE_MAX, followed
from edgeloop_controller.store import events
from edgeloop_controller.store.engine import Database


def add(database: Database, *kinds: str, subject: str = "x") -> None:
    with database.writing() as session:
        for kind in kinds:
            events.add(session, 1.0, kind, subject)


def test_a_filter_costs_no_second_reading(database: Database) -> None:
    add(database, "a.done", "b.done", "b.done", "b.done")
    with database.reading() as session:
        looked = events.look_on(session, 0, "a.*", 10)
        assert ([e.id for e in looked.events], looked.through) == ([1], 4)
        looked = events.look_on(session, 0, "b.*", 2)
        assert ([e.id for e in looked.events], looked.through) == ([2, 3], 3)
        assert events.look_on(session, 4, None, 10).through == 4
        assert [e.id for e in events.latest(session, None, 10, subject="y")] == []


def test_after_a_restored_backup_it_goes_on_from_what_there_is(database: Database) -> None:
    add(database, "a.done", "a.done")
    with database.reading() as session:
        assert events.look_on(session, 99, None, 10) == events.Looked([], 2)


class Away:
    """Pages, and errors between them, as the controller would give them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    def __call__(self, after: int) -> Any:
        self.asked.append(after)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def page(*ids: int, through: int = 0) -> Any:
    return {"items": [{"id": i} for i in ids], "next": through or ids[-1]}


UNREACHABLE = ApiError(None, "unreachable", "no controller answers", "")
NO_DATABASE = ApiError(503, "database_unavailable", "not now", "")
REFUSED = ApiError(422, "refused_input", "what is that", "")


def test_it_goes_on_from_the_id_it_had_when_the_controller_went_away() -> None:
    ask = Away(page(5, 6), UNREACHABLE, NO_DATABASE, page(7, through=9), page(10), REFUSED)
    waits: list[float] = []
    found: list[int] = []

    def follow() -> None:
        for event in followed(ask, 4, waits.append):
            found.append(event["id"])

    with pytest.raises(ApiError, match="what is that"):
        follow()
    assert found == [5, 6, 7, 10]
    assert ask.asked == [4, 6, 6, 6, 9, 10]
    assert len(waits) == 6
    assert all(1.0 <= wait <= 30.0 for wait in waits)


def test_a_full_page_is_followed_by_the_next_at_once() -> None:
    ask = Away(page(*range(1, PAGE_MAX + 1)), page(PAGE_MAX + 1), REFUSED)
    waits: list[float] = []
    with pytest.raises(ApiError):
        list(followed(ask, 0, waits.append))
    assert len(waits) == 2  # before the first page and the third


def test_the_command_filters_and_resumes(cli: Any, controller: Any) -> None:
    database = controller.parts.services.database
    add(database, "a.done", "b.done", subject="d1")
    add(database, "a.done", subject="d2")

    def ids(*arguments: str) -> list[int]:
        return [e["id"] for e in cli.json("events", *arguments)["items"]]

    assert ids() == [1, 2, 3]
    assert ids("--kind", "a.*", "--subject", "d1") == [1]
    assert ids("--after", "1", "--limit", "1") == [2]


def test_a_restart_of_the_controller_in_the_middle(
    controller: Any, free_port: Any, wait_until: Any
) -> None:
    """A real server that goes away and comes back on its port, and a real client."""
    database, port, seen = controller.parts.services.database, free_port(), list[int]()
    done = threading.Event()

    def pause(_: float) -> None:
        if done.wait(0.02):
            raise EOFError

    def follow() -> None:
        with Client(f"http://127.0.0.1:{port}") as client, contextlib.suppress(EOFError):
            for event in followed(lambda after: client.get("/events", after=after), 0, pause):
                seen.append(event["id"])

    following = threading.Thread(target=follow)
    following.start()
    with serving(create_app(controller.parts.services), port):
        add(database, *["a.done"] * 3)
        wait_until(lambda: seen == [1, 2, 3])
    add(database, *["a.done"] * 2)
    with serving(create_app(controller.parts.services), port):
        wait_until(lambda: len(seen) >= 5)
        add(database, "a.done")
        wait_until(lambda: len(seen) >= 6)
    done.set()
    following.join()
    assert seen == [1, 2, 3, 4, 5, 6]


@contextlib.contextmanager
def serving(app: Any, port: int) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield
    server.should_exit = True
    thread.join()
