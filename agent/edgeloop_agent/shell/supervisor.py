"""The supervisor: takes what happened, asks the core, performs it. Whoever drives it (a thread with
a queue, an event loop with thousands of them, a simulator) calls `take` and `turn`, never at once.

Invariants: effects are performed in the core's order, the journal first, and the core is told what
became of it; a journal that cannot be written is tried again, the newest state only, and holds up
nothing that does not rest on it; no effect blocks for longer than a disk does; whatever comes in
malformed is counted, logged and dropped; after `close` nothing is begun, and `end` leaves nothing
in memory that a disk would take.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core import effects as do
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    DesiredReceived,
    Event,
    JournalFailed,
    JournalSaved,
    RestartRunnerAsked,
    RunnerExited,
    Started,
    Tick,
)
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import (
    DownlinkMessage,
    Fetcher,
    Journal,
    RunnerHost,
    RunnerSaid,
    Status,
    Traffic,
)
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.rejections import Rejections
from edgeloop_agent.shell.requests import Diagnose, Requests
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_agent.shell.uplink import Uplink
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import ProtocolError
from edgeloop_protocol.messages import Ack, Desired, Inventory, Request, decode
from edgeloop_protocol.mqtt import Broker, BrokerListener
from edgeloop_protocol.topics import Down, parse_down_topic

logger = logging.getLogger(__name__)

JOURNAL_RETRY_S: Final = 1.0
NOBODY: Final = ""
"""Asked for by no request, so nobody is answered."""


def _none_dropped() -> int:
    return 0


def _nothing_to_show(request: Request) -> str:
    return f"no {request.asks} are kept here"


@dataclass(slots=True)
class Parts:
    """The adapters that a supervisor works with; `listener` brings what the broker says to
    `take`, and `jitter` draws from [0, 1)."""

    config: AgentConfig
    clock: Clock
    broker: Broker
    listener: BrokerListener
    journal: Journal
    telemetry: Telemetry
    store: ModelStore
    host: RunnerHost
    fetcher: Fetcher
    take_inventory: Callable[[], Inventory]
    status: Status
    jitter: Callable[[], float]
    messages_dropped: Callable[[], int] = _none_dropped
    outbox_problem: str = ""
    diagnose: Diagnose = _nothing_to_show


class Supervisor:
    __slots__ = (
        "_answers",
        "_closed",
        "_deadline",
        "_device",
        "_epoch",
        "_is_settled",
        "_journal_problem",
        "_journal_retry_at",
        "_parts",
        "_rejections",
        "_requests",
        "_unsaved",
        "_uplink",
    )

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        snapshot, self._journal_problem = parts.journal.load()
        self._device = Device(parts.config.slots, snapshot, parts.config.core(), parts.jitter)
        self._epoch = parts.telemetry.outbox.epoch
        self._uplink = Uplink(parts.config, parts.broker, self._epoch, parts.take_inventory)
        self._requests = Requests(self._uplink, parts.diagnose, parts.telemetry.samples_left_bytes)
        self._rejections = Rejections(parts.telemetry, parts.clock)
        self._closed = False
        self._answers: list[Event] = []
        self._unsaved: DeviceSnapshot | None = None
        self._journal_retry_at = float("-inf")
        self._deadline: float | None = None
        """The device's, as long as `_is_settled`: nothing was handled since it was asked."""
        self._is_settled = False

    @property
    def device(self) -> Device:
        """For those who look, not for those who change."""
        return self._device

    def begin(self) -> None:
        """The agent has booted."""
        parts = self._parts
        parts.telemetry.event("agent_started", detail=f"epoch {self._epoch}")
        if self._journal_problem:
            parts.telemetry.event("journal_corrupt", detail=self._journal_problem[:200])
        if parts.outbox_problem:
            parts.telemetry.event("outbox_corrupt", detail=parts.outbox_problem[:200])
        parts.fetcher.start()
        self._handle(Started())
        parts.broker.start(parts.listener)

    def turn(self) -> None:
        """What is due by time: after items were taken, and at `next_wake` at the latest."""
        if self._unsaved is not None and self._parts.clock.monotonic() >= self._journal_retry_at:
            self._persist(self._unsaved)
            self._handle_answers()
        deadline = self._deadline if self._is_settled else self._device.next_deadline()
        if deadline is not None and self._parts.clock.monotonic() >= deadline:
            self._handle(Tick())
            deadline = self._device.next_deadline()
        self._deadline, self._is_settled = deadline, True
        self._parts.telemetry.pump(self._uplink.telemetry, self._uplink.said)
        self._parts.status.refresh(self._device, self._traffic())

    def next_wake(self) -> float | None:
        """Monotonic; None: nothing is timed."""
        deadline = self._deadline if self._is_settled else self._device.next_deadline()
        times = [deadline, self._parts.telemetry.drain.next_deadline()]
        if self._unsaved is not None:
            times.append(self._journal_retry_at)
        return min((time for time in times if time is not None), default=None)

    def close(self) -> None:
        """From here on nothing is begun; telemetry is still taken."""
        self._closed = True

    def end(self) -> None:
        """The last words, after the runners' ends: what is left is sent after the restart."""
        self._closed = True
        if self._unsaved is not None:
            self._journal_retry_at = float("-inf")
            self._persist(self._unsaved)
        self._uplink.presence(online=False)
        self._parts.broker.stop()
        self._parts.fetcher.stop()
        self._parts.status.refresh(self._device, self._traffic(), stopped=True)

    def reconfigure(self, config: AgentConfig, restart_slots: Iterable[str]) -> None:
        """The labels and what runners are started with; the rest stays as it was begun with."""
        labels_differ = config.labels != self._parts.config.labels
        self._parts.config = config
        self._uplink.use(config)
        if labels_differ and self._device.connected:
            self._uplink.hello(do.SendHello(self._device.revision, self._device.reported()))
        for slot in restart_slots:
            self._handle(RestartRunnerAsked(slot, NOBODY))

    def take(self, item: Event | RunnerSaid | DownlinkMessage) -> None:
        """Something happened; `turn` follows."""
        if isinstance(item, RunnerSaid):
            self._parts.telemetry.record(item.body)
        elif isinstance(item, DownlinkMessage):
            self._hear(item)
        elif not self._closed:
            if isinstance(item, BrokerConnected):
                self._parts.telemetry.drain.connected(self._parts.clock.monotonic())
            elif isinstance(item, BrokerDisconnected):
                self._parts.telemetry.drain.disconnected()
            self._handle(item)

    def _hear(self, message: DownlinkMessage) -> None:
        try:
            device_id, kind = parse_down_topic(message.topic)
            if device_id != self._parts.config.device_id:
                return
            if kind is Down.ACK:
                self._parts.telemetry.acknowledged(decode(Ack, message.payload))
            elif self._closed:
                return
            elif kind is Down.REQUEST:
                event = self._requests.take(decode(Request, message.payload))
                if event is not None:
                    self._handle(event)
            else:
                self._handle(DesiredReceived(decode(Desired, message.payload)))
        except ProtocolError as error:
            self._rejections.reject(str(error))

    def _handle(self, event: Event) -> None:
        self._answers.append(event)
        self._handle_answers()

    def _handle_answers(self) -> None:
        """Until no effect has an answer: a JournalSaved leads to what rests on it."""
        self._is_settled = False
        while self._answers:
            event = self._answers.pop(0)
            for effect in self._device.handle(event, self._parts.clock.monotonic()):
                try:
                    self._perform(effect)
                except OSError as error:
                    self._failed(effect, error)

    def _failed(self, effect: do.Effect, error: OSError) -> None:
        logger.error("%s failed: %s", type(effect).__name__, error)
        if isinstance(effect, do.StartRunner):
            self._answers.append(
                RunnerExited(effect.slot, effect.runner, f"cannot be started: {error}")
            )

    def _persist(self, snapshot: DeviceSnapshot) -> None:
        """At most one state waits for the disk: the newest."""
        self._unsaved = snapshot
        now = self._parts.clock.monotonic()
        if now < self._journal_retry_at:
            return
        try:
            self._parts.journal.save(snapshot)
        except OSError as error:
            logger.error("the journal cannot be written: %s; trying again", error)
            self._journal_retry_at = now + JOURNAL_RETRY_S
            self._answers.append(JournalFailed(str(error)))
        else:
            self._unsaved = None
            self._answers.append(JournalSaved(snapshot))

    def _perform(self, effect: do.Effect) -> None:
        parts = self._parts
        match effect:
            case do.PersistJournal():
                self._persist(effect.snapshot)
            case do.FetchManifest() | do.FetchArtifact():
                parts.fetcher.submit(effect)
            case do.SendHello():
                self._uplink.hello(effect)
            case do.SendReported():
                self._uplink.reported(effect)
            case do.AppendEvent():
                logger.info("slot %s: %s: %s", effect.slot, effect.name, effect.detail)
                parts.telemetry.event(effect.name, effect.slot, effect.version, effect.detail)
            case do.AnswerRequest():
                if effect.request != NOBODY:
                    self._requests.answered(effect)
            case do.CollectGarbage():
                parts.fetcher.keep(effect.keep_manifests)
                parts.store.collect_garbage(effect.keep_manifests, effect.keep_artifacts)
            case _:
                self._perform_on_runner(effect)

    def _perform_on_runner(
        self,
        effect: do.StartRunner
        | do.Mirror
        | do.Go
        | do.DropShadow
        | do.CaptureExamples
        | do.StopRunner,
    ) -> None:
        host = self._parts.host
        match effect:
            case do.StartRunner():
                host.start(effect)
            case do.Mirror():
                host.mirror(effect.slot, effect.runner, effect.challenger)
            case do.Go():
                host.go(effect.slot, effect.runner)
            case do.DropShadow():
                host.drop_shadow(effect.slot, effect.runner)
            case do.CaptureExamples():
                host.capture(effect.slot, effect.runner, effect.examples)
            case do.StopRunner():
                host.stop(effect.slot, effect.runner, effect.kill)

    def _traffic(self) -> Traffic:
        return Traffic(
            bytes_up=self._uplink.sent_bytes,
            rejected_messages=self._rejections.count,
            messages_dropped=self._parts.messages_dropped(),
        )
