"""A device in the virtual world: its power, its process, and the real supervisor in it.

Invariants: the agent's own code decides everything; the process ends only by a fault or by being
switched off, and boots again by itself, as an init system would have it; what it needs of the
world it gets through the ports. An exception that leaves the agent is a death of its own kind,
which no invariant allows.
"""

import logging
import math
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from edgeloop_agent.config import (
    AgentConfig,
    LimitsConfig,
    ReplaySource,
    SlotConfig,
    TelemetryConfig,
)
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.events import BrokerConnected, BrokerDisconnected, Event, FetchFailed
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import DownlinkMessage, Fetch, Outbox, RunnerSaid, Traffic
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch import FetchEvent
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.outbox import SqliteOutbox, make_schema
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.limits import EVENT_QUEUE_MAX, MIB
from edgeloop_protocol.messages import Inventory, Presence, RuntimeInfo, encode
from edgeloop_protocol.topics import Up, check_device_id, device_subscription, up_topic
from edgeloop_simulators.twins.outbox import MemoryOutbox
from edgeloop_simulators.virtual.device import disk as device_disk
from edgeloop_simulators.virtual.device.artifact_server import ArtifactServer
from edgeloop_simulators.virtual.device.disk import Death, DeviceDisk, How
from edgeloop_simulators.virtual.device.fetcher import VirtualFetcher
from edgeloop_simulators.virtual.device.outbox_ledger import OutboxLedger
from edgeloop_simulators.virtual.device.runner import RunnerWorld, VirtualRunner
from edgeloop_simulators.virtual.device.runners import VirtualRunners
from edgeloop_simulators.virtual.device.window import Window
from edgeloop_simulators.virtual.kernel.clock import VirtualClock
from edgeloop_simulators.virtual.kernel.loop import EventLoop, Timer
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.client import VirtualClient
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import AgentTiming, DeviceSpec

logger = logging.getLogger(__name__)

RESTART_S: Final = (0.5, 5.0)
"""How long an init system waits before it starts the agent again."""
POWER_OFF_S: Final = (2.0, 40.0)
DISK_RESERVE_BYTES: Final = MIB
CLOCKS: Final = frozenset({FaultKind.CLOCK_1970, FaultKind.CLOCK_FUTURE, FaultKind.CLOCK_JUMP})
CONFIGS_KEPT_MAX: Final = 1024
THIRTY_YEARS_S: Final = 30 * 365.25 * 86_400.0

Item = Event | RunnerSaid | DownlinkMessage


@dataclass(frozen=True)
class DeviceWorld:
    """What a device finds around it."""

    loop: EventLoop
    streams: Streams
    observe: Observe
    network: Network
    artifacts: ArtifactServer
    behaviours: Mapping[str, Behaviour]
    timing: AgentTiming
    slot: str
    starts_at_wall_s: float


@dataclass
class _Process:
    """One life of the agent."""

    supervisor: Supervisor
    client: VirtualClient
    fetcher: VirtualFetcher
    runners: VirtualRunners


class DeviceWatcher(Protocol):
    """Who looks at what devices do."""

    def device_touched(self, host: "DeviceHost") -> None: ...

    def runner_started(self, host: "DeviceHost", runner: VirtualRunner) -> None: ...


class DeviceHost:
    def __init__(self, spec: DeviceSpec, world: DeviceWorld, watcher: DeviceWatcher) -> None:
        self.spec = spec
        self.luck = world.streams.of_device(f"device/{spec.id}")
        self.power = DeviceDisk(spec.kind.disk_bytes, self.luck, self.die)
        self.clock = VirtualClock(world.loop, world.starts_at_wall_s)
        self.place = Place(spec.id, spec.site, spec.kind.name, spec.kind.link)
        self.config = _config(spec, world)
        self.outbox_max_bytes = world.timing.outbox_max_bytes
        self.appended: dict[str, int] = {}
        """How many records the outbox ever numbered, by epoch."""
        self.outbox: Outbox | None = None
        self.boots = 0
        self.up_since: float | None = None
        """When this life of the process began; None: there is none."""
        self.served_at = 0.0
        """When nothing was last wrong with the serving."""
        self.emptied_at = 0.0
        """When the outbox was last seen empty."""
        self.ended_by: How | None = None
        """How the last life of the process ended."""
        self.ended_detail = ""
        self.trials: dict[int, VirtualRunner] = {}
        """Runners of this life, by number: evidence of probation."""
        self.snapshot: DeviceSnapshot | None = None
        """The process's state as of the last thing that it did; None: there is no process."""
        self._world = world
        self._watcher = watcher
        self._database: sqlite3.Connection | None = None
        self._memory: MemoryOutbox | None = None
        self._process: _Process | None = None
        self._inbox: deque[Item] = deque()
        self._turn_at: Timer | None = None
        self._wake: Timer | None = None
        self._wake_at_s = math.inf
        self._boot_at: Timer | None = None
        self._switched_on = False
        self._radio_on = True
        self._said: DeviceSnapshot | None = None
        self._dropped = 0

    # ---- for those who look ---------------------------------------------------------------------

    @property
    def device(self) -> Device | None:
        return self._process.supervisor.device if self._process is not None else None

    @property
    def runners(self) -> tuple[VirtualRunner, ...]:
        return self._process.runners.running() if self._process is not None else ()

    @property
    def inbox_size(self) -> int:
        return len(self._inbox)

    @property
    def fetches_waiting(self) -> int:
        return self._process.fetcher.waiting if self._process is not None else 0

    @property
    def outbox_held(self) -> int:
        return self.outbox.totals().held if self.outbox is not None else 0

    @property
    def is_reachable(self) -> bool:
        """Whether it is meant to be: switched on, its radio too."""
        return self._switched_on and self._radio_on

    @property
    def is_disk_ill(self) -> bool:
        return self.power.is_ill

    @property
    def spoilt(self) -> int:
        """How often a server's answer or this disk had other bytes than it should."""
        return self._world.artifacts.spoilt.get(self.spec.id, 0) + self.power.flips

    def is_bad(self, digest: str) -> bool:
        """Whether that version cannot go on serving here, by its own fault."""
        behaviour = self._world.behaviours.get(digest)
        architecture = self.spec.kind.architecture
        return behaviour is not None and (
            behaviour.crashes_after(architecture) is not None
            or behaviour.hangs_after(architecture) is not None
        )

    # ---- power and faults -----------------------------------------------------------------------

    def switch_on(self) -> None:
        if not self._switched_on:
            self._switched_on = True
            self._boot()

    def switch_off(self) -> None:
        """A clean shutdown."""
        self._switched_on = False
        process = self._process
        if process is not None:
            self._guard(lambda: self._shut_down(process))
        if self._process is not None:
            self._end(How.SWITCHED_OFF, "")
        if self._boot_at is not None:
            self._boot_at.cancel()

    def radio(self, on: bool) -> None:
        self._radio_on = on
        if self._process is not None:
            self._process.client.radio(on)

    def begin(self, fault: Fault) -> None:
        if fault.kind in device_disk.KINDS:
            self.power.begin(fault)
        elif fault.kind is FaultKind.CLOCK_1970:
            self.clock.set_wrong(0.0)
        elif fault.kind is FaultKind.CLOCK_FUTURE:
            self.clock.set_wrong(self.clock.wall() + THIRTY_YEARS_S)
        elif fault.kind is FaultKind.CLOCK_JUMP:
            forwards = self.luck.random() < 0.5
            self.clock.set_wrong(self.clock.wall() + (fault.amount if forwards else -fault.amount))
        elif fault.kind is FaultKind.RUNNER_KILL:
            for runner in self.runners:
                runner.stop(kill=True)

    def end(self, fault: Fault) -> None:
        if fault.kind in device_disk.KINDS:
            self.power.end(fault)
        elif fault.kind in CLOCKS:
            self.clock.set_right()

    def die(self, how: How) -> None:
        if self._process is not None:
            self._end(how, "")

    # ---- a life of the process ------------------------------------------------------------------

    def _boot(self) -> None:
        self._boot_at = None
        if self._process is None and self._switched_on:
            self._guard(self._start)

    def _start(self) -> None:
        """Raises Death, or OSError where the disk takes nothing: then it is tried again."""
        self.boots += 1
        epoch = f"{self.boots:04x}{self.luck.getrandbits(48):012x}"
        try:
            parts, process_of = self._parts(epoch)
            supervisor = Supervisor(parts)
        except OSError as error:
            raise _CannotStartError(str(error)) from error
        self._process = process_of(supervisor)
        self.up_since = self.served_at = self._world.loop.now_s
        self._said = None
        self._see("device.booted", epoch=epoch, boots=self.boots)
        self._process.client.radio(self._radio_on)
        supervisor.begin()
        self.snapshot = supervisor.device.snapshot()
        self._post_turn()

    def _parts(self, epoch: str) -> tuple[Parts, Callable[[Supervisor], _Process]]:
        world, config = self._world, self.config
        disk, clock = self.power.disk, self.clock
        outbox = OutboxLedger(self._open_outbox(epoch), self.power.problem, self.appended)
        budget = ByteBudget(
            config.telemetry.budget_bytes_per_day, outbox.load_budget(), clock.monotonic()
        )
        self.outbox = outbox
        self.trials = {}
        fetcher = VirtualFetcher(
            world.loop, self._inventory, self._post, self._guard, self._fetch_ended
        )
        store = ModelStore(disk)
        source = world.artifacts.source(self.place, fetcher.sleep)
        fetcher.use(Downloader(source, store, DISK_RESERVE_BYTES))
        runners = VirtualRunners(
            RunnerWorld(
                loop=world.loop,
                device=self.spec,
                timing=world.timing,
                behaviours=world.behaviours,
                disk=disk,
                clock=clock,
                luck=self.luck,
                post=self._post,
                watcher=self,
            )
        )
        client = world.network.client(
            self.spec.id,
            (device_subscription(self.spec.id),),
            (
                up_topic(self.spec.id, Up.PRESENCE),
                encode(Presence(epoch=epoch, online=False)),
            ),
            self.place,
        )
        parts = Parts(
            config=config,
            clock=clock,
            broker=client,
            listener=self,
            journal=FileJournal(disk),
            telemetry=Telemetry(outbox, budget, clock),
            store=store,
            host=runners,
            fetcher=fetcher,
            take_inventory=self._inventory,
            status=_NoStatus(),
            jitter=self.luck.random,
            messages_dropped=lambda: self._dropped,
        )
        return parts, lambda supervisor: _Process(supervisor, client, fetcher, runners)

    def _open_outbox(self, epoch: str) -> Outbox:
        timing = self._world.timing
        if timing.cheap_outbox:
            if self._memory is None:
                self._memory = MemoryOutbox(epoch, timing.outbox_max_bytes)
            else:
                self._memory.restart(epoch)
            return self._memory
        if self._database is None:
            self._database = sqlite3.connect(":memory:", isolation_level=None)
            make_schema(self._database)
        return SqliteOutbox(self._database, epoch, timing.outbox_max_bytes)

    def _shut_down(self, process: _Process) -> None:
        process.supervisor.close()
        process.runners.stop_all(kill=False)
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, RunnerSaid | DownlinkMessage):
                process.supervisor.take(item)
        process.supervisor.end()
        self.snapshot = process.supervisor.device.snapshot()

    def _end(self, how: How, detail: str) -> None:
        """The process is gone, whatever it was doing."""
        process, self._process = self._process, None
        self.snapshot = None
        self.power.after(how)
        self._inbox.clear()
        for timer in (self._turn_at, self._wake):
            if timer is not None:
                timer.cancel()
        self._turn_at = self._wake = None
        self._wake_at_s = math.inf
        if process is not None:
            process.runners.all_killed()
            process.fetcher.stop()
            if how is not How.SWITCHED_OFF:
                process.client.crash()
        self.up_since = None
        self.ended_by, self.ended_detail = how, detail
        self._see("device.died", why=how.value, detail=detail)
        if self._switched_on:
            cut = how in (How.POWER_CUT, How.TORN)
            self._boot_at = self._world.loop.call_in(
                self.luck.uniform(*(POWER_OFF_S if cut else RESTART_S)), self._boot
            )

    def _guard(self, action: Callable[[], Any]) -> None:
        """Run what is the agent's; what comes out of it ends the process."""
        try:
            action()
        except Death as death:
            self._end(death.how, "")
        except _CannotStartError as error:
            self._end(How.CANNOT_START, str(error))
        except Exception as error:
            logger.exception("the agent of %s raised", self.spec.id)
            self._end(How.RAISED, repr(error))
        self._watcher.device_touched(self)

    # ---- the supervisor's queue -----------------------------------------------------------------

    def connected(self) -> None:
        self._see("device.connected")
        self._post(BrokerConnected())

    def disconnected(self, reason: str) -> None:
        self._see("device.disconnected", reason=reason)
        self._post(BrokerDisconnected())

    def message(self, topic: str, payload: bytes) -> None:
        if len(self._inbox) >= EVENT_QUEUE_MAX:
            self._dropped += 1
            return
        self._post(DownlinkMessage(topic, payload))

    def _post(self, item: Item) -> None:
        self._inbox.append(item)
        self._post_turn()

    def _post_turn(self) -> None:
        if self._turn_at is None:
            self._turn_at = self._world.loop.call_in(0.0, self._turn)

    def _turn(self) -> None:
        self._turn_at = None
        if self._process is not None:
            self._guard(self._work)

    def _work(self) -> None:
        process, inbox = self._process, self._inbox
        assert process is not None
        supervisor = process.supervisor
        while inbox:
            supervisor.take(inbox.popleft())
        supervisor.turn()
        self.snapshot = snapshot = supervisor.device.snapshot()
        if snapshot is not self._said:
            self._say_what_changed(snapshot)
        self._wake_by(supervisor.next_wake())

    def _wake_by(self, at_s: float | None) -> None:
        """A wake that is planned for earlier stays: deadlines move out with every sign of life, and
        each would leave its timer behind."""
        if at_s is None:
            at_s = math.inf
        elif self._wake_at_s <= at_s:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at_s = at_s
        self._wake = None if at_s == math.inf else self._world.loop.call_at(at_s, self._woken)

    def _woken(self) -> None:
        self._wake, self._wake_at_s = None, math.inf
        process = self._process
        if process is None:
            return
        due = process.supervisor.next_wake()
        if due is not None and due <= self._world.loop.now_s:
            self._post_turn()
        else:
            self._wake_by(due)

    def _say_what_changed(self, snapshot: DeviceSnapshot) -> None:
        before = {slot.slot: slot for slot in self._said.slots} if self._said else {}
        self._said = snapshot
        for slot in snapshot.slots:
            if slot is not before.get(slot.slot):
                refused = slot.refused
                self._see(
                    "slot.state",
                    slot=slot.slot,
                    state=slot.state.value,
                    champion=_name(slot.champion),
                    candidate=_name(slot.candidate.offer if slot.candidate else None),
                    refused=f"{refused.version}: {refused.cause}" if refused else None,
                    revision=snapshot.revision,
                )

    # ---- what runners and fetches do ------------------------------------------------------------

    def runner_started(self, runner: VirtualRunner) -> None:
        self.trials[runner.number] = runner
        self._watcher.runner_started(self, runner)
        self._see("runner.started", runner=runner.number, version=str(runner.version))

    def runner_serves(self, runner: VirtualRunner) -> None:
        self._see("runner.serving", runner=runner.number, version=str(runner.version))

    def runner_exited(self, runner: VirtualRunner, why: str) -> None:
        self._see("runner.exited", runner=runner.number, version=str(runner.version), why=why)

    def window_closed(self, runner: VirtualRunner, window: Window) -> None:
        self._see(
            "window",
            version=str(runner.version),
            count=window.count,
            right=window.right,
            errors=window.errors,
            nonfinite=window.nonfinite,
            disagreements=window.disagreements,
            phase=self.spec.surroundings.phase(self._world.loop.now_s),
        )

    def _fetch_ended(self, fetch: Fetch, event: FetchEvent) -> None:
        failed = event.detail if isinstance(event, FetchFailed) else ""
        self._see(
            "fetch.ended",
            what=type(fetch).__name__.removeprefix("Fetch").lower(),
            version=f"{fetch.offer.name}@{fetch.offer.version}",
            outcome=failed or "ok",
        )

    def _inventory(self) -> Inventory:
        kind = self.spec.kind
        return Inventory(
            agent_version="virtual",
            architecture=kind.architecture,
            python="3.11",
            runtimes=(
                RuntimeInfo(name=kind.runtime, version="1", max_opset=99, max_ir_version=99),
            ),
            memory_bytes=kind.memory_bytes,
            disk_free_bytes=self.power.disk.free_bytes(),
            cpu_count=1,
        )

    def _see(self, what: str, /, **data: Any) -> None:
        self._world.observe(Seen(self._world.loop.now_s, self.spec.id, what, data))


class _CannotStartError(Exception):
    pass


class _NoStatus:
    """`edgeloop-agent status` has nobody to read it here."""

    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None: ...


def _name(version: Any) -> str | None:
    return None if version is None else f"{version.name}@{version.version}"


def _config(spec: DeviceSpec, world: DeviceWorld) -> AgentConfig:
    """All that devices of like labels share is one and the same."""
    labels = (("site", spec.site), *spec.labels.items())
    shared = _config_of(labels, world.timing, world.slot)
    return shared.model_copy(update={"device_id": check_device_id(spec.id)})


@lru_cache(maxsize=CONFIGS_KEPT_MAX)
def _config_of(labels: tuple[tuple[str, str], ...], timing: AgentTiming, slot: str) -> AgentConfig:
    return AgentConfig(
        device_id="any",
        state_dir=Path("/virtual/state"),
        controller_url="http://controller",
        labels=dict(labels),
        slots={slot: SlotConfig(source=ReplaySource(path=Path("/virtual/source.csv")))},
        telemetry=TelemetryConfig(
            window_s=timing.window_s, outbox_max_bytes=timing.outbox_max_bytes
        ),
        limits=LimitsConfig(heartbeat_timeout_s=timing.heartbeat_timeout_s),
    )
