"""The one writer of what devices say: inbox → one transaction a batch → acknowledgements.

Invariants: an acknowledgement is sent only after the commit of what it acknowledges; any message
may come again, late or out of order without being counted twice; a message that cannot be used is
counted, logged and dropped, and never holds up those behind it; of telemetry whose numbers can be
read, what cannot be stored is refused record by record and acknowledged with the rest; a database
that cannot be written now (disk full, locked) is tried again, and nothing acknowledged meanwhile.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from edgeloop_controller.services import device_state
from edgeloop_controller.services.decoding import Received, Refused, decode_inbound
from edgeloop_controller.services.desired import DesiredPublisher, Outbound, wanted_slots
from edgeloop_controller.services.diagnosis import Diagnosis
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.inbox import Inbound, Inbox
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store import device_rows
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.telemetry import (
    STORE_ERRORS,
    Cursor,
    PartialBatch,
    Rows,
    insert_rows,
    load_cursors,
    mark_unstorable,
    save_cursors,
    take_batch,
)
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import (
    Ack,
    Hello,
    Presence,
    Reported,
    Response,
    TelemetryBatch,
    encode,
)
from edgeloop_protocol.topics import Down, down_topic

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0
GATHER_S: Final = 0.05
"""How long a batch that is not full waits for more: a transaction for each message would cost most
of a processor before a fleet has begun to speak."""
REFUSAL_SHOWN_EVERY_S: Final = 60.0
SENDERS_REMEMBERED_MAX: Final = 10_000


@dataclass
class IngestCounters:
    """Since the start of this process; the durable figures are in the database."""

    messages: int = 0
    records: int = 0
    duplicates: int = 0
    lost: int = 0
    merged: int = 0
    gaps: int = 0
    refused: int = 0
    ignored: int = 0
    dropped: int = 0

    def add(self, other: "IngestCounters") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class _Outcome:
    """What is to be said after the commit."""

    counters: IngestCounters = field(default_factory=IngestCounters)
    acks: dict[tuple[str, str], int] = field(default_factory=dict)
    answer: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    unheard: set[str] = field(default_factory=set)
    responses: list[tuple[str, Response]] = field(default_factory=list)
    refusals: dict[str, Refused] = field(default_factory=dict)
    """The first one of each sender that is to be shown."""


@dataclass(frozen=True)
class _Known:
    """What the database holds of those who speak in a batch, and what it will hold."""

    devices: device_state.Devices
    cursors: dict[tuple[str, str], Cursor]


class Ingest:
    """`process` is the work; `run` does it on the calling thread until the inbox is closed."""

    def __init__(
        self,
        database: Database,
        inbox: Inbox,
        outbound: Outbound,
        desired: DesiredPublisher,
        unheard: Unheard,
        clock: Clock,
        batch_max_messages: int,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._outbound = outbound
        self._desired = desired
        self._unheard = unheard
        self._clock = clock
        self._batch_max_messages = batch_max_messages
        self._diagnosis = diagnosis
        self._shown_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._failures = FailureLog(logger)
        self.counters = IngestCounters()

    def run(self) -> None:
        while self._inbox.wait():
            if len(self._inbox) < self._batch_max_messages:
                self._stopping.wait(GATHER_S)
            self._process_until_written(self._inbox.take(self._batch_max_messages))

    def work(self) -> int:
        """What is in the inbox now, without waiting for more; returns how many messages."""
        total = 0
        while batch := self._inbox.take(self._batch_max_messages):
            self._process_until_written(batch)
            total += len(batch)
        return total

    def stop(self) -> None:
        """End `run` after what is held; what cannot be written then stays unacknowledged."""
        self._stopping.set()
        self._inbox.close()

    def process(self, batch: Sequence[Inbound]) -> None:
        """Write one batch and say what follows from it. Raises OperationalError, nothing else."""
        decoded = [decode_inbound(inbound) for inbound in batch]
        try:
            self._commit(decoded)
        except OperationalError:
            raise
        except STORE_ERRORS:
            logger.exception("a batch of %d cannot be stored together: one by one", len(decoded))
            for one in decoded:
                self._commit_alone(one)

    def _process_until_written(self, batch: Sequence[Inbound]) -> None:
        while True:
            try:
                self.process(batch)
                self._failures.worked("writing to the database")
                return
            except OperationalError:
                self._failures.failed("writing to the database")
                if self._stopping.wait(RETRY_S):
                    return
            except Exception:
                logger.exception("dropped %d messages, unacknowledged", len(batch))
                self.counters.dropped += len(batch)
                return

    def _commit_alone(self, one: Received | Refused, *, is_partial: bool = False) -> None:
        try:
            self._commit([one])
        except OperationalError:
            raise
        except STORE_ERRORS as error:
            partial = None if is_partial else self._without_unstorable(one)
            if partial is not None:
                self._commit_alone(partial, is_partial=True)
                return
            sender = one.device_id if isinstance(one, Received) else one.sender
            reason = f"cannot be stored: {type(error).__name__}: {error}"[:TEXT_MAX_CHARS]
            self._commit([Refused(sender, reason, one.size_bytes)])

    def _without_unstorable(self, one: Received | Refused) -> Received | None:
        """Telemetry with its culprits marked; None when they are not single records."""
        if isinstance(one, Refused) or not isinstance(one.message, TelemetryBatch | PartialBatch):
            return None
        with self._database.writing() as session:
            partial = mark_unstorable(session, one.device_id, one.message, self._clock.wall())
        return None if partial.records == one.message.records else replace(one, message=partial)

    def _commit(self, decoded: Sequence[Received | Refused]) -> None:
        now = self._clock.wall()
        outcome, rows = _Outcome(), Rows()
        with self._database.writing() as session:
            known = _load(session, decoded, rows)
            for one in decoded:
                outcome.counters.messages += 1
                if isinstance(one, Refused):
                    self._refuse(one, now, outcome, rows)
                    known.devices.count_bytes(one.sender, one.size_bytes)
                else:
                    _take(known, one, now, outcome, rows)
                    known.devices.count_bytes(one.device_id, one.size_bytes)
            device_rows.save(session, known.devices.rows.values())
            save_cursors(session, known.cursors.values())
            insert_rows(session, rows)
        self.counters.add(outcome.counters)
        self._show(outcome.refusals)
        for (device_id, epoch), through in outcome.acks.items():
            ack = Ack(epoch=epoch, through=through)
            self._outbound.publish(down_topic(device_id, Down.ACK), encode(ack))
        for device_id, response in outcome.responses:
            if self._diagnosis is not None:
                self._diagnosis.answered(device_id, response)
        self._unheard.heard(outcome.heard)
        self._desired.publish(outcome.answer - outcome.unheard)
        self._unheard.ask(outcome.unheard)

    def _refuse(self, refused: Refused, now: float, outcome: _Outcome, rows: Rows) -> None:
        outcome.counters.refused += 1
        sender, elapsed_s = refused.sender, self._clock.monotonic()
        if sender in outcome.refusals:
            return
        if elapsed_s - self._shown_at.get(sender, -1e9) < REFUSAL_SHOWN_EVERY_S:
            return
        outcome.refusals[sender] = refused
        data = {"reason": refused.reason, "size_bytes": refused.size_bytes}
        rows.add_event(now, "message.refused", sender, data)

    def _show(self, refusals: Mapping[str, Refused]) -> None:
        """After the commit: what was rolled back was not shown."""
        for sender, refused in refusals.items():
            if len(self._shown_at) >= SENDERS_REMEMBERED_MAX:
                self._shown_at.clear()
            self._shown_at[sender] = self._clock.monotonic()
            logger.warning("refused a message of %s: %s", sender, refused.reason)


def _load(session: Session, decoded: Sequence[Received | Refused], rows: Rows) -> _Known:
    """All that the batch can ask for, in a few queries."""
    received = [one for one in decoded if isinstance(one, Received)]
    senders = {one.sender if isinstance(one, Refused) else one.device_id for one in decoded}
    hellos = {one.device_id for one in received if isinstance(one.message, Hello)}
    reported = {one.device_id for one in received if isinstance(one.message, Reported)}
    boots = {
        (one.device_id, one.message.epoch)
        for one in received
        if isinstance(one.message, TelemetryBatch | PartialBatch)
    }
    known = device_rows.load(session, senders, with_slots=hellos | reported, with_desired=hellos)
    devices = device_state.Devices(known, wanted_slots(session, hellos), rows)
    return _Known(devices, load_cursors(session, boots))


def _take(known: _Known, one: Received, now: float, outcome: _Outcome, rows: Rows) -> None:
    device_id, message = one.device_id, one.message
    if isinstance(message, Hello):
        outcome.heard.add(device_id)
        if known.devices.take_hello(message, now):
            outcome.answer.add(device_id)
    elif isinstance(message, Reported):
        if known.devices.is_of_another_boot(device_id, message):
            outcome.unheard.add(device_id)
        outcome.counters.ignored += not known.devices.take_reported(device_id, message, now)
    elif isinstance(message, Presence):
        outcome.counters.ignored += not known.devices.take_presence(device_id, message, now)
    elif isinstance(message, Response):
        outcome.responses.append((device_id, message))
        known.devices.seen(device_id, now)
    else:
        result = take_batch(known.cursors[device_id, message.epoch], message, now, rows)
        outcome.acks[device_id, message.epoch] = result.through
        outcome.counters.records += result.stored
        outcome.counters.refused += result.refused
        outcome.counters.duplicates += result.duplicates
        outcome.counters.lost += result.lost
        outcome.counters.merged += result.merged
        outcome.counters.gaps += result.gap
        known.devices.seen(device_id, now)
        if known.devices.has_unheard(device_id, message.said):
            outcome.unheard.add(device_id)
