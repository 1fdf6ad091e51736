"""Random streams by name, all from one seed.

Invariant: a stream depends on (seed, name) alone, on no other stream and on no hash seed; so taking
one fault out of a world leaves the luck of everything else as it was.
"""

import hashlib
import random


class Streams:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """A fresh stream; its owner keeps it."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return random.Random(int.from_bytes(digest[:16]))  # noqa: S311 - replayable, not secret
