"""An outbox that the disk may not give yet: a full or failing disk must not keep an agent from
running its models.

Invariants: it never fails to be made; while the real one cannot be opened every use raises
OutboxUnavailableError, which its users count and go on from, and opening is tried again with the
uses, REOPEN_S apart; the boot's epoch is the same before and after.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from edgeloop_agent.errors import OutboxUnavailableError
from edgeloop_agent.ports import EpochCounts, HeldRecords, OutboxTotals
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

REOPEN_S: Final = 5.0


class PatientOutbox:
    """`open_outbox` takes the epoch, and raises OutboxUnavailableError."""

    def __init__(
        self, open_outbox: Callable[[str], SqliteOutbox], epoch: str, clock: Clock
    ) -> None:
        self.epoch = epoch
        self._open_outbox = open_outbox
        self._clock = clock
        self._outbox: SqliteOutbox | None = None
        self._why = OutboxUnavailableError("the outbox is not open yet")
        self._again_at = float("-inf")
        self._try()

    @property
    def problem(self) -> str:
        """What was wrong with the file that was found, in words."""
        return self._outbox.problem if self._outbox is not None else ""

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        return self._opened().append(documents, budget_left_bytes)

    def next_batch(self) -> HeldRecords | None:
        return self._opened().next_batch()

    def acknowledge(self, epoch: str, through: int) -> int:
        return self._opened().acknowledge(epoch, through)

    def load_budget(self) -> float | None:
        """None also while it cannot be known."""
        return None if self._outbox is None else self._outbox.load_budget()

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        if self._outbox is None:
            return (EpochCounts(self.epoch, appended=0, dropped=0, acked=0, held=0),)
        return self._outbox.counts(newest)

    def totals(self) -> OutboxTotals:
        if self._outbox is None:
            return OutboxTotals(held=0, held_bytes=0, dropped=0)
        return self._outbox.totals()

    def close(self) -> None:
        if self._outbox is not None:
            self._outbox.close()

    def _opened(self) -> SqliteOutbox:
        if self._outbox is None and self._clock.monotonic() >= self._again_at:
            self._try()
        if self._outbox is None:
            raise OutboxUnavailableError(str(self._why)) from self._why
        return self._outbox

    def _try(self) -> None:
        try:
            self._outbox = self._open_outbox(self.epoch)
        except OutboxUnavailableError as error:
            logger.error("%s; trying again", error)
            self._why, self._again_at = error, self._clock.monotonic() + REOPEN_S
