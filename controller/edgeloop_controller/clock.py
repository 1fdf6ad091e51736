"""The clocks as a port, so that tests and simulations bring their own."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970: for what is stored and shown."""

    def monotonic(self) -> float:
        """Seconds that only grow: for durations within this process."""


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
