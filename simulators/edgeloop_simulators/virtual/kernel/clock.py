"""The clock of a machine in the virtual world: durations are the world's, the time of day may lie.

Invariant: `monotonic` never goes back, whatever is done to the time of day.
"""

from edgeloop_simulators.virtual.kernel.loop import EventLoop


class VirtualClock:
    __slots__ = ("_loop", "_starts_at_wall_s", "_wrong_at", "_wrong_wall_s")

    def __init__(self, loop: EventLoop, starts_at_wall_s: float) -> None:
        self._loop = loop
        self._starts_at_wall_s = starts_at_wall_s
        self._wrong_at = 0.0
        self._wrong_wall_s: float | None = None

    def monotonic(self) -> float:
        return self._loop.now_s

    def wall(self) -> float:
        if self._wrong_wall_s is not None:
            return self._wrong_wall_s + self._loop.now_s - self._wrong_at
        return self._starts_at_wall_s + self._loop.now_s

    def set_wrong(self, wall_s: float) -> None:
        """It shows this now, and goes on from there."""
        self._wrong_at, self._wrong_wall_s = self._loop.now_s, wall_s

    def set_right(self) -> None:
        self._wrong_wall_s = None
