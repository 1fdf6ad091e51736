"""A clock that only moves when told to: the twin of the machine's."""


class SimulatedClock:
    def __init__(self, monotonic_s: float = 0.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic(self) -> float:
        return self._monotonic_s

    def wall(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        """Time passes; it never goes back."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s: use jump_wall for a bad clock")
        self._monotonic_s += seconds
        self._wall_s += seconds

    def jump_wall(self, wall_s: float) -> None:
        """A bad clock: 1970, or thirty years ahead. Durations do not notice."""
        self._wall_s = wall_s
