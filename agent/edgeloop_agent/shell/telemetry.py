"""Telemetry between the runners, the outbox and the broker.

Invariants: what was appended is sent until it is acknowledged; only an acknowledgement empties the
outbox; beyond the byte budget samples and sketches are withheld and counted, window summaries and
events go on; a record too large for any message costs only itself. While the disk takes nothing,
records are lost and counted, and the rest of the agent goes on.
"""

import logging
from collections.abc import Callable

from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.core.drain import Drain
from edgeloop_agent.errors import OutboxUnavailableError, RecordTooLargeError
from edgeloop_agent.ports import HeldRecords, Outbox
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import MessageError
from edgeloop_protocol.messages import (
    Ack,
    DeviceEvent,
    RecordBody,
    Said,
    Sample,
    VersionRef,
    WindowSummary,
    encode_telemetry,
)

logger = logging.getLogger(__name__)


class Telemetry:
    def __init__(
        self,
        outbox: Outbox,
        budget: ByteBudget,
        clock: Clock,
        capture_budget: ByteBudget | None = None,
    ) -> None:
        """`capture_budget`: of samples alone, within `budget`."""
        self.outbox = outbox
        self.drain = Drain()
        self._budget = budget
        self._clock = clock
        self._capture_budget = capture_budget
        self.samples_withheld = 0
        self.sketches_withheld = 0
        self.too_large = 0
        self.unwritten = 0

    def budget_left_bytes(self) -> float:
        return self._budget.left_bytes(self._clock.monotonic())

    def event(
        self,
        name: str,
        slot: str | None = None,
        version: VersionRef | None = None,
        detail: str = "",
    ) -> None:
        self.record(
            DeviceEvent(at=self._clock.wall(), name=name, slot=slot, version=version, detail=detail)
        )

    def record(self, body: RecordBody) -> None:
        now = self._clock.monotonic()
        document = self._within_budget(body, now)
        if document is None:
            return
        size = len(document)
        try:
            dropped = self.outbox.append([document], self._budget.left_after(size, now))
            self._budget.spend(size, now)
        except RecordTooLargeError as error:
            self.too_large += 1
            logger.warning("%s; it is dropped", error)
            return
        except OutboxUnavailableError as error:
            if not self.unwritten:
                logger.error("%s; records are lost until it takes them again", error)
            self.unwritten += 1
            return
        if dropped:
            logger.warning("the outbox is full: %d records were dropped", dropped)
        self.drain.filled(now)

    def acknowledged(self, ack: Ack) -> None:
        """When the disk cannot forget them, they are sent again later: that is idempotent."""
        try:
            self.outbox.acknowledge(ack.epoch, ack.through)
        except OutboxUnavailableError as error:
            logger.warning("%s", error)
            return
        self.drain.acknowledged(ack.epoch, ack.through, self._clock.monotonic())

    def pump(self, publish: Callable[[bytes], bool], said: Said | None = None) -> None:
        """Send the next batch if it is time, with what was `said` last."""
        now = self._clock.monotonic()
        if not self.drain.is_due(now):
            return
        try:
            batch = self.outbox.next_batch()
        except OutboxUnavailableError as error:
            logger.warning("%s", error)
            self.drain.refused(now)
            return
        if batch is None:
            self.drain.emptied()
            return
        payload, through = _encode(batch, said)
        if publish(payload):
            self.drain.sent(batch.epoch, through, now)
        else:
            self.drain.refused(now)

    def _may_send(self, sample_bytes: int, now: float) -> bool:
        """And count it as captured."""
        if not self._budget.can_pay(sample_bytes, now):
            return False
        if self._capture_budget is not None:
            if not self._capture_budget.can_pay(sample_bytes, now):
                return False
            self._capture_budget.spend(sample_bytes, now)
        return True

    def samples_left_bytes(self) -> float:
        """What the day still holds for samples."""
        now = self._clock.monotonic()
        left = self._budget.left_bytes(now)
        if self._capture_budget is None:
            return left
        return min(left, self._capture_budget.left_bytes(now))

    def _within_budget(self, body: RecordBody, now: float) -> bytes | None:
        """The body's document; None: withheld."""
        document = _document(body)
        if isinstance(body, Sample) and not self._may_send(len(document), now):
            self.samples_withheld += 1
            return None
        if (
            isinstance(body, WindowSummary)
            and body.sketches is not None
            and not self._budget.can_pay(len(document), now)
        ):
            self.sketches_withheld += 1
            return _document(body.model_copy(update={"sketches": None}))
        return document


def _encode(batch: HeldRecords, said: Said | None) -> tuple[bytes, int]:
    """The payload and the last sequence in it; halved until it fits, as one record always does."""
    count = len(batch.documents)
    while True:
        try:
            payload = encode_telemetry(
                batch.epoch, batch.base, batch.documents[:count], said, batch.reduced
            )
        except MessageError:
            if count == 1:
                raise
            count //= 2
        else:
            return payload, batch.base + count - 1


def _document(body: RecordBody) -> bytes:
    """Encoded once: as it is stored, counted and sent."""
    return body.model_dump_json().encode()
