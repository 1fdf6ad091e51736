"""The byte budget of a device's telemetry: a bucket that fills by a day's budget in a day.

Invariants: never holds more than one day's budget; what must go out (window summaries, events) is
taken even from an empty bucket, what may wait (samples, sketches) only when it can pay.
"""

from typing import Final

DAY_S: Final = 86_400.0


class ByteBudget:
    def __init__(self, bytes_per_day: int, left_bytes: float | None, now: float) -> None:
        """`left_bytes`: the level before a restart, which must not refill it; None: full."""
        self._per_day = float(bytes_per_day)
        self._left = self._per_day if left_bytes is None else min(left_bytes, self._per_day)
        self._at = now

    def left_bytes(self, now: float) -> float:
        self._left = min(self._per_day, self._left + (now - self._at) * self._per_day / DAY_S)
        self._at = now
        return self._left

    def spend(self, size_bytes: int, now: float) -> None:
        self._left = self.left_after(size_bytes, now)

    def left_after(self, size_bytes: int, now: float) -> float:
        """The level that spending so much would leave."""
        return max(0.0, self.left_bytes(now) - size_bytes)

    def can_pay(self, size_bytes: int, now: float) -> bool:
        return self.left_bytes(now) >= size_bytes
