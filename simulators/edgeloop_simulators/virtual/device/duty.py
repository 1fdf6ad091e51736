"""Duty cycles: when, by its own time zone, a device is switched on and its radio too.

Invariant: a device with no windows is on for good, and costs no event.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.spec.world import DailyWindow

HOUR_S: Final = 3600.0
DAY_H: Final = 24.0


class Duty:
    """Calls `switch(on)` at each boundary of `windows`, and once at `begin`."""

    def __init__(
        self,
        loop: EventLoop,
        windows: Sequence[DailyWindow],
        local_h_at_start: float,
        switch: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._windows = tuple(windows)
        self._local_h_at_start = local_h_at_start
        self._switch = switch

    def begin(self) -> None:
        self._switch(self.is_on(self._loop.now_s))
        self._plan()

    def is_on(self, at_s: float) -> bool:
        if not self._windows:
            return True
        hour = self._hour(at_s)
        return any(_inside(window, hour) for window in self._windows)

    def _plan(self) -> None:
        if not self._windows:
            return
        hour = self._hour(self._loop.now_s)
        edges = {edge for window in self._windows for edge in (window.from_h, window.to_h)}
        wait_h = min((edge - hour) % DAY_H or DAY_H for edge in edges)
        # A little late, so that the hour of the boundary lies behind it whatever the rounding.
        self._loop.call_in(wait_h * HOUR_S + 0.001, self._change)

    def _change(self) -> None:
        self._switch(self.is_on(self._loop.now_s))
        self._plan()

    def _hour(self, at_s: float) -> float:
        return (self._local_h_at_start + at_s / HOUR_S) % DAY_H


def _inside(window: DailyWindow, hour: float) -> bool:
    if window.from_h <= window.to_h:
        return window.from_h <= hour < window.to_h
    return hour >= window.from_h or hour < window.to_h
