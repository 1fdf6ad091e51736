"""Waiting for what can mend itself: a reason in words, and when to try again.

Invariant: there is no last try; the wait between two grows with full jitter up to BACKOFF_S_MAX.
"""

from collections.abc import Callable

from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.limits import TEXT_MAX_CHARS


class Waiting:
    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._waits = 0
        self.why = ""
        self.until: float | None = None
        self.for_room = False
        """For memory or disk of this device, which other slots may give back."""

    def wait(self, why: str, now: float, for_room: bool = False) -> None:
        self._waits += 1
        self.why = why[:TEXT_MAX_CHARS]
        self.until = now + backoff_s(self._waits, self._jitter())
        self.for_room = for_room

    def is_over(self, now: float) -> bool:
        return self.until is not None and now >= self.until

    def clear(self) -> None:
        self._waits, self.why, self.until, self.for_room = 0, "", None, False
