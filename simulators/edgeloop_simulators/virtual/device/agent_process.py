"""One life of the agent: the real supervisor over simulated ports, and the queue of what happens.

Invariants: the agent's own code decides everything; what it does runs under the owner's guard, so
that what comes out of it ends this life and nothing else; once ended, nothing is taken any more.
"""

import math
from collections import deque
from typing import Final, Protocol

from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.events import BrokerConnected, BrokerDisconnected, Event
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import DownlinkMessage, RunnerSaid, Traffic
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.limits import EVENT_QUEUE_MAX, MIB
from edgeloop_protocol.messages import Presence, encode
from edgeloop_protocol.topics import Up, device_subscription, up_topic
from edgeloop_simulators.virtual.device.agent_trace import AgentTrace
from edgeloop_simulators.virtual.device.fetcher import Guard, VirtualFetcher
from edgeloop_simulators.virtual.device.machine import Machine
from edgeloop_simulators.virtual.device.runner import RunnerWorld, VirtualRunner
from edgeloop_simulators.virtual.device.runners import VirtualRunners
from edgeloop_simulators.virtual.kernel.loop import Timer
from edgeloop_simulators.virtual.network.client import VirtualClient

DISK_RESERVE_BYTES: Final = MIB

Item = Event | RunnerSaid | DownlinkMessage


class ProcessOwner(Protocol):
    """Who starts a process, and ends it with what comes out of it."""

    @property
    def guard(self) -> Guard: ...

    def runner_started(self, runner: VirtualRunner) -> None: ...


class AgentProcess:
    """`epoch` is what the outbox numbers by in this life. Raises OSError, and Death, where the disk
    does not bear a start."""

    __slots__ = (
        "_dropped",
        "_inbox",
        "_is_over",
        "_machine",
        "_owner",
        "_trace",
        "_turn_at",
        "_wake",
        "_wake_at_s",
        "client",
        "fetcher",
        "runners",
        "snapshot",
        "supervisor",
        "trials",
    )

    def __init__(self, machine: Machine, epoch: str, owner: ProcessOwner) -> None:
        self._machine = machine
        self._owner = owner
        self._trace = AgentTrace(machine, self._runner_started)
        self._inbox: deque[Item] = deque()
        self._dropped = 0
        self._is_over = False
        self._turn_at: Timer | None = None
        self._wake: Timer | None = None
        self._wake_at_s = math.inf
        self.trials: dict[tuple[str, int], VirtualRunner] = {}
        """Its runners, by slot and number: evidence of probation."""
        self.snapshot: DeviceSnapshot | None = None
        """Its state as of the last thing that it did; None: it did nothing yet."""
        self.supervisor = Supervisor(self._parts(epoch))

    @property
    def device(self) -> Device:
        return self.supervisor.device

    @property
    def inbox_size(self) -> int:
        return len(self._inbox)

    def begin(self) -> None:
        self.supervisor.begin()
        self.snapshot = self.supervisor.device.snapshot()
        self._post_turn()

    def shut_down(self) -> None:
        """As on SIGTERM: runners have their last word."""
        self.supervisor.close()
        self.runners.stop_all(kill=False)
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, RunnerSaid | DownlinkMessage):
                self.supervisor.take(item)
        self.supervisor.end()
        self.snapshot = self.supervisor.device.snapshot()

    def ended(self, cleanly: bool) -> None:
        """It is gone, whatever it was doing."""
        self._is_over = True
        self._inbox.clear()
        for timer in (self._turn_at, self._wake):
            if timer is not None:
                timer.cancel()
        self.runners.all_killed()
        self.fetcher.stop()
        if not cleanly:
            self.client.crash()

    def connected(self) -> None:
        self._machine.see("device.connected")
        self._post(BrokerConnected())

    def disconnected(self, reason: str) -> None:
        self._machine.see("device.disconnected", reason=reason)
        self._post(BrokerDisconnected())

    def message(self, topic: str, payload: bytes) -> None:
        if len(self._inbox) >= EVENT_QUEUE_MAX:
            self._dropped += 1
            return
        self._post(DownlinkMessage(topic, payload))

    def _parts(self, epoch: str) -> Parts:
        machine = self._machine
        world, config = machine.world, machine.config
        disk, clock = machine.power.disk, machine.clock
        outbox = machine.open_outbox(epoch)
        budget = ByteBudget(
            config.telemetry.budget_bytes_per_day, outbox.load_budget(), clock.monotonic()
        )
        self.fetcher = VirtualFetcher(
            world.loop, machine.inventory, self._post, self._owner.guard, self._trace.fetch_ended
        )
        store = ModelStore(disk)
        source = world.artifacts.source(
            machine.place, self.fetcher.sleep, config.limits.download_bytes_per_s_max
        )
        self.fetcher.use(Downloader(source, store, DISK_RESERVE_BYTES))
        self.runners = VirtualRunners(
            RunnerWorld(
                loop=world.loop,
                device=machine.spec,
                timing=world.timing,
                behaviours=world.behaviours,
                disk=disk,
                clock=clock,
                luck=machine.luck,
                post=self._post,
                watcher=self._trace,
            )
        )
        self.client: VirtualClient = self._client(epoch)
        return Parts(
            config=config,
            clock=clock,
            broker=self.client,
            listener=self,
            journal=FileJournal(disk),
            telemetry=Telemetry(outbox, budget, clock),
            store=store,
            host=self.runners,
            fetcher=self.fetcher,
            take_inventory=machine.inventory,
            status=_NoStatus(),
            jitter=machine.luck.random,
            messages_dropped=lambda: self._dropped,
        )

    def _client(self, epoch: str) -> VirtualClient:
        device_id = self._machine.spec.id
        return self._machine.world.network.client(
            device_id,
            (device_subscription(device_id),),
            (up_topic(device_id, Up.PRESENCE), encode(Presence(epoch=epoch, online=False))),
            self._machine.place,
        )

    def _runner_started(self, runner: VirtualRunner) -> None:
        if runner.budget is None:
            self.trials[runner.slot, runner.number] = runner
        self._owner.runner_started(runner)

    def _post(self, item: Item) -> None:
        if self._is_over:
            return
        self._inbox.append(item)
        self._post_turn()

    def _post_turn(self) -> None:
        if self._turn_at is None:
            self._turn_at = self._machine.world.loop.call_in(0.0, self._turn)

    def _turn(self) -> None:
        self._turn_at = None
        self._owner.guard(self._work)

    def _work(self) -> None:
        supervisor, inbox = self.supervisor, self._inbox
        while inbox:
            supervisor.take(inbox.popleft())
        supervisor.turn()
        self.snapshot = snapshot = supervisor.device.snapshot()
        self._trace.slots(snapshot)
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
        loop = self._machine.world.loop
        self._wake = None if at_s == math.inf else loop.call_at(at_s, self._woken)

    def _woken(self) -> None:
        self._wake, self._wake_at_s = None, math.inf
        due = self.supervisor.next_wake()
        if due is not None and due <= self._machine.world.loop.now_s:
            self._post_turn()
        else:
            self._wake_by(due)


class _NoStatus:
    """`edgeloop-agent status` has nobody to read it here."""

    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None: ...
