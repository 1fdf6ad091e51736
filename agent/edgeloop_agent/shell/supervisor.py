"""The supervisor: one thread, one bounded queue; takes what happened, asks the core, performs it.

Invariants: effects are performed in the core's order, the journal first; no effect blocks for
longer than a disk does; whatever comes in malformed is counted, logged and dropped; a stop ends
every runner and leaves nothing in memory that the disk has not.
"""

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core import effects as do
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    DesiredReceived,
    Event,
    RunnerExited,
    Started,
    Tick,
)
from edgeloop_agent.ports import Journal, RunnerHost
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.inbox import DownlinkMessage, Inbox
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.runner_process import RunnerSaid
from edgeloop_agent.shell.status import Downlink, StatusFile
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import ProtocolError
from edgeloop_protocol.messages import (
    Ack,
    Desired,
    Hello,
    Inventory,
    Presence,
    Reported,
    Wire,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import Broker
from edgeloop_protocol.topics import Down, Up, parse_down_topic, up_topic

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
"""How long a stop signal may wait: its handler can only set a flag."""
STOP_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 2.0
REJECTED_EVENT_INTERVAL_S: Final = 60.0
JOURNAL_RETRY_S: Final = 1.0


@dataclass(slots=True)
class Parts:
    """The adapters that a supervisor works with."""

    config: AgentConfig
    clock: Clock
    inbox: Inbox
    broker: Broker
    journal: Journal
    telemetry: Telemetry
    store: ModelStore
    host: RunnerHost
    fetcher: FetchWorker
    take_inventory: Callable[[], Inventory]
    status: StatusFile
    outbox_problem: str = ""


@dataclass(slots=True)
class Rejections:
    count: int = 0
    event_at: float = field(default=float("-inf"))


class Supervisor:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        snapshot, self._journal_problem = parts.journal.load()
        self._device = Device(
            parts.config.slots,
            snapshot,
            parts.config.limits.core(),
            random.SystemRandom().random,
        )
        self._epoch = parts.telemetry.outbox.epoch
        self._sequence = 0
        self._rejections = Rejections()
        self._stop_requested = False
        self._pending: deque[do.Effect] = deque()
        self._not_started: deque[RunnerExited] = deque()
        self._journal_retry_at = float("-inf")

    def request_stop(self) -> None:
        """May be called from a signal handler: it only sets a flag."""
        self._stop_requested = True

    def run(self) -> None:
        """Until a stop is requested."""
        parts = self._parts
        parts.telemetry.event("agent_started", detail=f"epoch {self._epoch}")
        if self._journal_problem:
            parts.telemetry.event("journal_corrupt", detail=self._journal_problem[:200])
        if parts.outbox_problem:
            parts.telemetry.event("outbox_corrupt", detail=parts.outbox_problem[:200])
        parts.fetcher.start()
        self._handle(Started())
        parts.broker.start(parts.inbox)
        try:
            while not self._stop_requested:
                self._turn()
        finally:
            self._stop()

    def _turn(self) -> None:
        for item in self._parts.inbox.take(self._timeout_s()):
            self._take(item)
        self._perform_pending()
        while self._not_started:
            self._handle(self._not_started.popleft())
        deadline = self._device.next_deadline()
        if deadline is not None and self._parts.clock.monotonic() >= deadline:
            self._handle(Tick())
        self._parts.telemetry.pump(lambda payload: self._publish(Up.TELEMETRY, payload))
        self._parts.status.refresh(self._device, self._downlink())

    def _timeout_s(self) -> float:
        now = self._parts.clock.monotonic()
        deadlines = (self._device.next_deadline(), self._parts.telemetry.drain.next_deadline())
        waits = [deadline - now for deadline in deadlines if deadline is not None]
        return max(0.0, min([POLL_S, *waits]))

    def _take(self, item: object) -> None:
        if isinstance(item, RunnerSaid):
            self._parts.telemetry.record(item.body)
        elif isinstance(item, DownlinkMessage):
            self._hear(item)
        else:
            if isinstance(item, BrokerConnected):
                self._parts.telemetry.drain.connected(self._parts.clock.monotonic())
            elif isinstance(item, BrokerDisconnected):
                self._parts.telemetry.drain.disconnected()
            self._handle(item)  # type: ignore[arg-type]

    def _hear(self, message: DownlinkMessage) -> None:
        try:
            device_id, kind = parse_down_topic(message.topic)
            if device_id != self._parts.config.device_id:
                return
            if kind is Down.DESIRED:
                self._handle(DesiredReceived(decode(Desired, message.payload)))
            else:
                self._parts.telemetry.acknowledged(decode(Ack, message.payload))
        except ProtocolError as error:
            self._reject(str(error))

    def _reject(self, why: str) -> None:
        self._rejections.count += 1
        now = self._parts.clock.monotonic()
        if now - self._rejections.event_at >= REJECTED_EVENT_INTERVAL_S:
            self._rejections.event_at = now
            logger.warning("a message was dropped: %s", why)
            self._parts.telemetry.event("message_rejected", detail=why[:200])

    def _handle(self, event: Event) -> None:
        self._pending.extend(self._device.handle(event, self._parts.clock.monotonic()))
        self._perform_pending()

    def _perform_pending(self) -> None:
        """In order. While the journal cannot be written, nothing behind it is done."""
        now = self._parts.clock.monotonic()
        if now < self._journal_retry_at:
            return
        while self._pending:
            try:
                self._perform(self._pending[0])
            except OSError as error:
                if isinstance(self._pending[0], do.PersistJournal):
                    logger.error("the journal cannot be written: %s; trying again", error)
                    self._journal_retry_at = now + JOURNAL_RETRY_S
                    return
                self._failed(self._pending[0], error)
            self._pending.popleft()

    def _failed(self, effect: do.Effect, error: OSError) -> None:
        logger.error("%s failed: %s", type(effect).__name__, error)
        if isinstance(effect, do.StartRunner):
            self._not_started.append(
                RunnerExited(effect.slot, effect.runner, f"cannot be started: {error}")
            )

    def _perform(self, effect: do.Effect) -> None:
        parts = self._parts
        match effect:
            case do.PersistJournal():
                parts.journal.save(effect.snapshot)
            case do.FetchManifest() | do.FetchArtifact():
                parts.fetcher.submit(effect)
            case do.SendHello():
                self._say_hello(effect)
            case do.SendReported():
                self._say_reported(effect)
            case do.AppendEvent():
                logger.info("slot %s: %s: %s", effect.slot, effect.name, effect.detail)
                parts.telemetry.event(effect.name, effect.slot, effect.version, effect.detail)
            case do.CollectGarbage():
                parts.fetcher.keep(effect.keep_manifests)
                parts.store.collect_garbage(effect.keep_manifests, effect.keep_artifacts)
            case _:
                self._perform_on_runner(effect)

    def _perform_on_runner(
        self, effect: do.StartRunner | do.Go | do.DropShadow | do.StopRunner
    ) -> None:
        host = self._parts.host
        match effect:
            case do.StartRunner():
                host.start(effect)
            case do.Go():
                host.go(effect.slot, effect.runner)
            case do.DropShadow():
                host.drop_shadow(effect.slot, effect.runner)
            case do.StopRunner():
                host.stop(effect.slot, effect.runner, effect.kill)

    def _say_hello(self, effect: do.SendHello) -> None:
        self._say(Up.PRESENCE, Presence(epoch=self._epoch, online=True))
        self._say(
            Up.HELLO,
            Hello(
                device_id=self._parts.config.device_id,
                epoch=self._epoch,
                sequence=self._next_sequence(),
                revision=effect.revision,
                labels=self._parts.config.labels,
                inventory=self._parts.take_inventory(),
                slots=effect.slots,
            ),
        )

    def _say_reported(self, effect: do.SendReported) -> None:
        """Lost if the link is down just now, or the controller away: the hello of the next connect
        and the answer to the next desired state say it all again."""
        self._say(
            Up.REPORTED,
            Reported(
                epoch=self._epoch,
                sequence=self._next_sequence(),
                revision=effect.revision,
                slots=effect.slots,
            ),
        )

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _say(self, kind: Up, message: Wire) -> None:
        self._publish(kind, encode(message))

    def _publish(self, kind: Up, payload: bytes) -> bool:
        sent = self._parts.broker.publish(up_topic(self._parts.config.device_id, kind), payload)
        if sent:
            self._parts.status.bytes_up += len(payload)
        return sent

    def _stop(self) -> None:
        """The runners' last windows still go into the outbox; they are sent after the restart."""
        parts = self._parts
        for kill, grace_s in ((False, STOP_GRACE_S), (True, KILL_GRACE_S)):
            deadline = parts.clock.monotonic() + grace_s
            parts.host.stop_all(kill)
            while parts.host.alive() and parts.clock.monotonic() < deadline:
                self._keep_telemetry(0.1)
        self._keep_telemetry(0.0)
        self._say(Up.PRESENCE, Presence(epoch=self._epoch, online=False))
        parts.broker.stop()
        parts.fetcher.stop()
        parts.status.refresh(self._device, self._downlink(), stopped=True)

    def _downlink(self) -> Downlink:
        return Downlink(self._rejections.count, self._parts.inbox.messages_dropped)

    def _keep_telemetry(self, timeout_s: float) -> None:
        for item in self._parts.inbox.take(timeout_s):
            if isinstance(item, RunnerSaid | DownlinkMessage):
                self._take(item)
