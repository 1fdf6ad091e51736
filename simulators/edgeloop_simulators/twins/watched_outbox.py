"""An outbox with somebody who looks on: what all such have in common.

Invariant: behaves as the outbox that it wraps; who looks on overrides what it looks at.
"""

from collections.abc import Sequence

from edgeloop_agent.ports import EpochCounts, HeldRecords, Outbox, OutboxTotals


class WatchedOutbox:
    """The Outbox port."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    @property
    def epoch(self) -> str:
        return self._outbox.epoch

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        return self._outbox.append(documents, budget_left_bytes)

    def next_batch(self) -> HeldRecords | None:
        return self._outbox.next_batch()

    def acknowledge(self, epoch: str, through: int) -> int:
        return self._outbox.acknowledge(epoch, through)

    def load_budget(self) -> float | None:
        return self._outbox.load_budget()

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        return self._outbox.counts(newest)

    def totals(self) -> OutboxTotals:
        return self._outbox.totals()

    def close(self) -> None:
        self._outbox.close()
