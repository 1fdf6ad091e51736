"""How many bytes may be read now: a token bucket over all downloads of a device together.

Invariants: over any interval of t seconds at one rate no more is granted than rate * t +
`burst_bytes`; a grant is worth a read (`read_bytes`) unless nothing is capped, so that a slow rate
costs few wakes; a new rate holds from the moment it is told, and grants nothing for the past.
"""

from typing import Final

from edgeloop_protocol.limits import KIB

READ_MAX_BYTES: Final = 64 * KIB
BURST_S: Final = 0.25
BURST_MIN_BYTES: Final = 1 * KIB


class RateCap:
    def __init__(self, bytes_per_s: float, now: float) -> None:
        """`bytes_per_s` 0: no cap."""
        self._at = now
        self._bytes_per_s = bytes_per_s
        self._level = float(self.burst_bytes)

    @property
    def bytes_per_s(self) -> float:
        return self._bytes_per_s

    @property
    def burst_bytes(self) -> int:
        """What may come at once after a pause."""
        return max(BURST_MIN_BYTES, int(self._bytes_per_s * BURST_S))

    @property
    def read_bytes(self) -> int:
        """What is worth a read."""
        return min(READ_MAX_BYTES, self.burst_bytes // 2)

    def use(self, bytes_per_s: float, now: float) -> None:
        """Another rate from now on; what was uncapped before begins with an empty bucket."""
        self._fill(now)
        had = self._level if self._bytes_per_s else 0.0
        self._bytes_per_s = bytes_per_s
        self._level = min(had, float(self.burst_bytes))

    def wait_s(self, now: float) -> float:
        """Until a read is worth it."""
        if not self._bytes_per_s:
            return 0.0
        self._fill(now)
        missing_bytes = self.read_bytes - self._level
        # A part of a byte is no reason to wait: a clock may be too coarse to ever pass it.
        return missing_bytes / self._bytes_per_s if missing_bytes >= 1 else 0.0

    def granted_bytes(self, now: float) -> int:
        """What may be read at once."""
        if not self._bytes_per_s:
            return READ_MAX_BYTES
        self._fill(now)
        return min(READ_MAX_BYTES, int(self._level))

    def took(self, size_bytes: int) -> None:
        """So much of a grant was read."""
        if self._bytes_per_s:
            self._level -= size_bytes

    def _fill(self, now: float) -> None:
        passed_s = max(0.0, now - self._at)
        self._level = min(float(self.burst_bytes), self._level + passed_s * self._bytes_per_s)
        self._at = max(now, self._at)
