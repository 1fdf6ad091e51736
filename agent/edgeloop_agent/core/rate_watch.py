"""Does a body come too slowly to be waited for? Against a server that keeps a device reading.

Invariant: only the time spent waiting for the other end counts, never that of this device's own
cap.
"""

from typing import Final

RATE_MIN_BYTES_PER_S: Final = 256
"""Below the lowest cap that a device may set on its downloads."""
RATE_WINDOW_S: Final = 60.0


class RateWatch:
    def __init__(self) -> None:
        self._size_bytes, self._waited_s = 0, 0.0

    def is_too_slow(self, size_bytes: int, waited_s: float) -> bool:
        """After a read that brought so much in so long."""
        self._size_bytes += size_bytes
        self._waited_s += waited_s
        if self._waited_s < RATE_WINDOW_S:
            return False
        is_slow = self._size_bytes < RATE_MIN_BYTES_PER_S * self._waited_s
        self._size_bytes, self._waited_s = 0, 0.0
        return is_slow
