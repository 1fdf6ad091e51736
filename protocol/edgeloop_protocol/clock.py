"""The clocks as a port, for both sides, so that tests and simulations bring their own.

Invariant: durations are measured by `monotonic`; `wall` is evidence and may be wrong or jump.
"""

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that only grow: for durations within this process."""

    def wall(self) -> float:
        """Seconds since 1970: for what is stored and shown."""


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
