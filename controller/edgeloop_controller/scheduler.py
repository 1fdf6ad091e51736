"""Periodic work: APScheduler 3 with the defaults that lose work turned off.

Invariants: a job that is late runs once, however late (`misfire_grace_time=None`: the default of
one second drops it silently); a job never overlaps itself; a job that raises is logged and runs
again at its next time.
"""

import logging
from collections.abc import Callable
from datetime import UTC
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED
from apscheduler.schedulers.background import BackgroundScheduler

logger = logging.getLogger(__name__)


class Scheduler:
    def __init__(self) -> None:
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = BackgroundScheduler(job_defaults=defaults, timezone=UTC, daemon=True)
        self._scheduler.add_listener(_report, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        # It warns at each time that finds a job still running: that is what coalesce is for.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def every(self, interval_s: float, name: str, work: Callable[[], None]) -> None:
        self._scheduler.add_job(work, "interval", seconds=interval_s, id=name, name=name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Returns when the running jobs have ended."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)


def _report(event: Any) -> None:
    if event.code == EVENT_JOB_MISSED:
        logger.error("job %s missed its time at %s", event.job_id, event.scheduled_run_time)
    else:
        logger.error("job %s failed", event.job_id, exc_info=event.exception)
