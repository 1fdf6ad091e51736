"""How many examples are answered in one go: as many as the model takes about CHUNK_S for."""

from typing import Final

CHUNK_S: Final = 0.002
CHUNK_EXAMPLES_MAX: Final = 64


class Chunks:
    """Until a latency is known a chunk is one example."""

    def __init__(self) -> None:
        self._latency_us = CHUNK_S * 1e6

    def took(self, latency_us: float) -> None:
        self._latency_us = latency_us

    def examples(self) -> int:
        fitting = int(CHUNK_S * 1e6 / max(1.0, self._latency_us))
        return max(1, min(CHUNK_EXAMPLES_MAX, fitting))
