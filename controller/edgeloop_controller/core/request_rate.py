"""How many requests an address may send: a token bucket for each, and a bound on the buckets.

Invariants: at most `addresses_max` buckets; what is forgotten first is what was quiet for longest.
"""

from collections import OrderedDict
from typing import Final

ADDRESSES_MAX: Final = 10_000


class RequestRate:
    """Not safe for several threads: one event loop asks."""

    def __init__(
        self, requests_per_s: float, burst: int, addresses_max: int = ADDRESSES_MAX
    ) -> None:
        self._requests_per_s = requests_per_s
        self._burst = burst
        self._addresses_max = addresses_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address → requests left, as of when (monotonic seconds)."""

    def wait_s(self, address: str, now: float) -> float:
        """Take one; 0: go on, else how long until there is one to take."""
        left, at = self._buckets.pop(address, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._requests_per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._requests_per_s
        self._buckets[address] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > self._addresses_max:
            self._buckets.popitem(last=False)
        return wait_s
