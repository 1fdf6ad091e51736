"""The scheduler: a job that is late is still run, and one that raises runs again."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_SUBMITTED

from edgeloop_controller.scheduler import Scheduler

INTERVAL_S = 0.1
WORKERS = 10
LATE_S = 1.2
"""Beyond the second after which APScheduler drops a late run by default."""


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()


def test_a_late_run_is_not_dropped(
    scheduler: Scheduler, wait_until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Every worker is busy for longer than the job's interval and than the default grace."""
    go, busy, runs, submitted = threading.Event(), [], [], threading.Event()

    def hold() -> None:
        busy.append(1)
        go.wait(30)

    def submit(event: Any) -> None:
        if event.job_id == "late":
            submitted.set()

    scheduler._scheduler.add_listener(submit, EVENT_JOB_SUBMITTED)
    for number in range(WORKERS):
        scheduler.every(INTERVAL_S, f"holder {number}", hold)
    scheduler.start()
    try:
        wait_until(lambda: len(busy) == WORKERS)
        scheduler.every(INTERVAL_S, "late", lambda: runs.append(1))
        assert submitted.wait(10)
        assert not go.wait(LATE_S)
        assert runs == []
    finally:
        go.set()
    wait_until(lambda: runs)
    assert "missed its time" not in caplog.text


def test_a_job_that_raises_runs_again(scheduler: Scheduler, wait_until: Any) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        raise RuntimeError("not today")

    scheduler.every(INTERVAL_S, "work", work)
    scheduler.start()
    wait_until(lambda: len(runs) >= 3)
