"""How much processor time a challenger may take: a token bucket over its own process's clock.

Invariants: pure; over any span it lets go on for at most `fraction` of the span and BURST_S of
processor time, and what the last example took beyond that is paid back first.
"""

from typing import Final

BURST_S: Final = 1.0


class CpuBudget:
    """`cpu_s` is the process's time on the processor, `now` is monotonic; both in seconds."""

    def __init__(self, fraction: float, cpu_s: float, now: float) -> None:
        self._fraction = fraction
        self._left_s = BURST_S * fraction
        self._cpu_s, self._at = cpu_s, now

    def pause_s(self, cpu_s: float, now: float) -> float:
        """How long to rest before the next example; 0: go on."""
        earned_s = (now - self._at) * self._fraction
        self._left_s = min(self._left_s + earned_s, BURST_S * self._fraction)
        self._left_s -= cpu_s - self._cpu_s
        self._cpu_s, self._at = cpu_s, now
        return max(0.0, -self._left_s / self._fraction)
