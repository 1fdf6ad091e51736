"""Random streams by name, all from one seed.

Invariant: a stream depends on (seed, name) alone, on no other stream and on no hash seed; so taking
one fault out of a world leaves the luck of everything else as it was.
"""

import hashlib
import random
from typing import Final

_64_BITS: Final = (1 << 64) - 1


class LightStream:
    """SplitMix64 (Steele, Lea, Flood 2014): a stream of eight bytes where `random.Random` takes
    2.5 KB, for those whom a world has by the hundred thousand."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state & _64_BITS

    def random(self) -> float:
        """In [0, 1)."""
        self._state = mixed = (self._state + 0x9E3779B97F4A7C15) & _64_BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
        return ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


class Streams:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """A fresh stream; its owner keeps it."""
        return random.Random(self._state(name))  # noqa: S311 - replayable, not secret

    def light(self, name: str) -> LightStream:
        return LightStream(self._state(name))

    def _state(self, name: str) -> int:
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return int.from_bytes(digest[:16])
