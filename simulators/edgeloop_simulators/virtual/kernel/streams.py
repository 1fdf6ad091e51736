"""Random streams by name, all from one seed.

Invariant: a stream depends on (seed, name) alone, on no other stream and on no hash seed; so taking
one fault out of a world leaves the luck of everything else as it was.
"""

import hashlib
import random
from typing import Final, Protocol

_64_BITS: Final = (1 << 64) - 1


class Luck(Protocol):
    """What is drawn by: `random.Random`, or a LightStream where there are very many."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...

    def randrange(self, start: int, stop: int | None = None) -> int: ...

    def randint(self, a: int, b: int) -> int: ...

    def getrandbits(self, k: int) -> int: ...

    def randbytes(self, n: int) -> bytes: ...


class LightStream:
    """SplitMix64 (Steele, Lea, Flood 2014): a stream of eight bytes where `random.Random` takes
    2.5 KB, for those whom a world has by the hundred thousand."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state & _64_BITS

    def random(self) -> float:
        """In [0, 1)."""
        return (self._next() >> 11) * 2.0**-53

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.random()

    def randrange(self, start: int, stop: int | None = None) -> int:
        first, width = (0, start) if stop is None else (start, stop - start)
        return first + int(self.random() * width)

    def randint(self, a: int, b: int) -> int:
        return self.randrange(a, b + 1)

    def getrandbits(self, k: int) -> int:
        bits = 0
        for _ in range(-(-k // 64)):
            bits = bits << 64 | self._next()
        return bits >> -k % 64

    def randbytes(self, n: int) -> bytes:
        return self.getrandbits(8 * n).to_bytes(n, "little")

    def _next(self) -> int:
        self._state = mixed = (self._state + 0x9E3779B97F4A7C15) & _64_BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
        return mixed ^ (mixed >> 31)


class Streams:
    """`many_devices`: their streams are light ones."""

    def __init__(self, seed: int, many_devices: bool = False) -> None:
        self.seed = seed
        self._many_devices = many_devices

    def stream(self, name: str) -> random.Random:
        """A fresh stream; its owner keeps it."""
        return random.Random(self._state(name))  # noqa: S311 - replayable, not secret

    def of_device(self, name: str) -> Luck:
        return self.light(name) if self._many_devices else self.stream(name)

    def light(self, name: str) -> LightStream:
        return LightStream(self._state(name))

    def _state(self, name: str) -> int:
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return int.from_bytes(digest[:16])
