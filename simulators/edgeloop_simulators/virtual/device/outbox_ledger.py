"""The agent's outbox, watched: the truth about what a device ever numbered, and the disk's faults.

Invariants: behaves as the outbox that it wraps, which is a real one; while the disk has a fault,
as a failing disk makes it; counts every record that `append` returned for.
"""

from collections.abc import Callable, Sequence

from edgeloop_agent.errors import OutboxUnavailableError
from edgeloop_agent.ports import Outbox
from edgeloop_simulators.twins.watched_outbox import WatchedOutbox


class OutboxLedger(WatchedOutbox):
    """`problem()`: what the disk says now, in words; empty when it is sound."""

    __slots__ = ("_problem", "appended")

    def __init__(
        self, outbox: Outbox, problem: Callable[[], str], appended: dict[str, int]
    ) -> None:
        super().__init__(outbox)
        self._problem = problem
        self.appended = appended
        """How many, by epoch: the n-th has sequence n."""

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        self._check()
        dropped = super().append(documents, budget_left_bytes)
        epoch = self._outbox.epoch
        self.appended[epoch] = self.appended.get(epoch, 0) + len(documents)
        return dropped

    def acknowledge(self, epoch: str, through: int) -> int:
        self._check()
        return super().acknowledge(epoch, through)

    def close(self) -> None:
        """What is in it stays: the device may boot again."""

    def _check(self) -> None:
        problem = self._problem()
        if problem:
            raise OutboxUnavailableError(f"the outbox: {problem}")
