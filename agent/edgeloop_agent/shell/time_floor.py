"""The wall clock with a floor under it: a time that has surely passed, kept over restarts.

Invariants: the floor only grows, by what the controller said and by what has passed since, never by
this device's own clock: one jump of thirty years would raise it for ever. A wall clock below the
floor, or above LATEST_S, is not believed: the floor is told instead. No duration comes from here.
"""

import json
import logging
import threading
from pathlib import Path
from typing import Final

from edgeloop_agent.ports import Disk
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

FILE_NAME: Final = "time-floor.json"
EARLIEST_S: Final = 1_767_225_600.0
"""2026-01-01: before this agent was made, so before any day on which it runs."""
LATEST_S: Final = EARLIEST_S + 20 * 365.25 * 86_400
"""A clock beyond it is wrong, the controller's too."""
KEEP_EVERY_S: Final = 3600.0
"""How much of the floor a power cut may take back; a flash disk pays for less."""


class FlooredClock:
    """A Clock; `heard` may be called from any thread."""

    def __init__(self, system: Clock, disk: Disk) -> None:
        self._system = system
        self._disk = disk
        self._lock = threading.Lock()
        self._floor_s = self._kept_s = _parse(_read(disk)) or EARLIEST_S
        self._as_of_s = system.monotonic()

    def monotonic(self) -> float:
        return self._system.monotonic()

    def wall(self) -> float:
        now, least = self._system.wall(), self.floor()
        self._keep(least)
        return now if least <= now <= LATEST_S else least

    def correction_s(self) -> float:
        """What to add to a time that another process of this device has just told."""
        now, told = self._system.wall(), self.wall()
        return 0.0 if abs(told - now) < 1.0 else told - now

    def floor(self) -> float:
        with self._lock:
            return self._floor_s + (self._system.monotonic() - self._as_of_s)

    def heard(self, said_s: float) -> None:
        """The controller says that it is `said_s`."""
        if not self.floor() < said_s <= LATEST_S:
            return
        with self._lock:
            self._floor_s, self._as_of_s = said_s, self._system.monotonic()
        self._keep(said_s)

    def _keep(self, floor_s: float) -> None:
        with self._lock:
            if floor_s - self._kept_s < KEEP_EVERY_S:
                return
            self._kept_s = floor_s
        try:
            write_durably(self._disk, FILE_NAME, json.dumps({"floor": round(floor_s)}).encode())
        except OSError as error:
            logger.warning("the time floor is not kept: %s", error)


def read_floor(state_dir: Path) -> float | None:
    """As of the last time that it was kept; None: never."""
    return _parse(_read(OsDisk(state_dir))) if state_dir.is_dir() else None


def _read(disk: Disk) -> bytes:
    try:
        return disk.read(FILE_NAME)
    except OSError:
        return b""


def _parse(content: bytes) -> float | None:
    """A file that a bad disk or a hand has changed counts for nothing."""
    try:
        floor = json.loads(content)["floor"]
    except (ValueError, TypeError, KeyError):
        return None
    is_number = isinstance(floor, int | float) and not isinstance(floor, bool)
    return float(floor) if is_number and EARLIEST_S <= floor <= LATEST_S else None
