"""One live device: the agent's real supervisor on a loop that it shares with thousands.

Real: supervisor and core, journal, model store, downloader, telemetry, the MQTT connection, HTTP,
inference. In memory, held to the real ones' contract suites: disk and outbox. Shared: inference.

Invariants: what happens to a device waits in its inbox until the loop comes to it, so `take` and
`turn` are never called from within each other; at most EVENT_QUEUE_MAX messages wait, the rest is
dropped and counted; a device holds at most one timer.
"""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.events import BrokerConnected, BrokerDisconnected, Event
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import DownlinkMessage, RunnerSaid, Traffic
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import EVENT_QUEUE_MAX, MIB
from edgeloop_protocol.messages import Inventory, Presence, encode
from edgeloop_protocol.topics import Up, device_subscription, up_topic
from edgeloop_simulators.live.connections import Connections
from edgeloop_simulators.live.downloads import ArtifactServer, LoopFetcher
from edgeloop_simulators.live.runners import SharedRunners
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.twins.outbox import MemoryOutbox

DISK_BYTES: Final = 256 * MIB
JITTER: Final = random.SystemRandom().random

Item = Event | RunnerSaid | DownlinkMessage


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the devices of one class share. `inventory` is theirs but for the free disk."""

    config: AgentConfig
    clock: Clock
    connections: Connections
    server: ArtifactServer
    runners: SharedRunners
    inventory: Inventory
    changed: Callable[["LiveDevice", DeviceSnapshot, DeviceSnapshot], None]
    """A device's durable state went from one to another."""


class LiveDevice:
    """`begin`, and `end` once. It is a BrokerListener and a Status."""

    __slots__ = (
        "_around",
        "_items",
        "_loop",
        "_messages_dropped",
        "_planned",
        "_snapshot",
        "_timer",
        "_turns",
        "connected_now",
        "device_id",
        "disk",
        "host",
        "outbox",
        "supervisor",
    )

    def __init__(
        self, around: Surroundings, device_id: str, labels: Mapping[str, str] | None = None
    ) -> None:
        self._around = around
        self._loop = around.connections.loop
        self._turns = around.connections.turns
        self._items: deque[Item] = deque()
        self._planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._messages_dropped = 0
        self._snapshot = DeviceSnapshot()
        self.connected_now = False
        self.device_id = device_id
        self.disk = MemoryDisk(DISK_BYTES)
        config = around.config.model_copy(
            update={"device_id": device_id, "labels": dict(labels or {})}
        )
        self.outbox = MemoryOutbox(secrets.token_hex(8), config.telemetry.outbox_max_bytes)
        self.host = around.runners.host(device_id, self.disk, self.post)
        self.supervisor = Supervisor(self._parts(config))

    def _parts(self, config: AgentConfig) -> Parts:
        around, clock, store = self._around, self._around.clock, ModelStore(self.disk)
        budget = ByteBudget(
            config.telemetry.budget_bytes_per_day, self.outbox.load_budget(), clock.monotonic()
        )
        will = encode(Presence(epoch=self.outbox.epoch, online=False))
        return Parts(
            config=config,
            clock=clock,
            broker=around.connections.client(
                self.device_id,
                (device_subscription(self.device_id),),
                (up_topic(self.device_id, Up.PRESENCE), will),
            ),
            listener=self,
            journal=FileJournal(self.disk),
            telemetry=Telemetry(self.outbox, budget, clock),
            store=store,
            host=self.host,
            fetcher=LoopFetcher(around.server, store, self.inventory, self.post),
            take_inventory=self.inventory,
            status=self,
            jitter=JITTER,
            messages_dropped=lambda: self._messages_dropped,
        )

    def begin(self) -> None:
        self.supervisor.begin()
        self._work_soon()

    def end(self) -> None:
        """A clean stop: the runners' last words are kept in the outbox."""
        self.supervisor.close()
        self.host.stop_all(kill=False)
        self.host.stop_all(kill=True)
        while self._items:
            self.supervisor.take(self._items.popleft())
        self.supervisor.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def inventory(self) -> Inventory:
        return self._around.inventory.model_copy(update={"disk_free_bytes": self.disk.free_bytes()})

    # ---- what happens to it ---------------------------------------------------------------------

    def post(self, item: Item) -> None:
        self._items.append(item)
        self._work_soon()

    def connected(self) -> None:
        self.connected_now = True
        self.post(BrokerConnected())

    def disconnected(self, reason: str) -> None:  # noqa: ARG002 - the adapter logs it
        self.connected_now = False
        self.post(BrokerDisconnected())

    def message(self, topic: str, payload: bytes) -> None:
        if len(self._items) >= EVENT_QUEUE_MAX:
            self._messages_dropped += 1
            return
        self.post(DownlinkMessage(topic, payload))

    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None:  # noqa: ARG002
        """The Status port: tells of what is durable."""
        snapshot = device.snapshot()
        if snapshot is not self._snapshot:
            before, self._snapshot = self._snapshot, snapshot
            self._around.changed(self, before, snapshot)

    # ---- when the loop comes to it --------------------------------------------------------------

    def _work_soon(self) -> None:
        if not self._planned:
            self._planned = True
            self._turns.soon(self._work)

    def _work(self) -> None:
        self._planned = False
        items, supervisor = self._items, self.supervisor
        while items:
            supervisor.take(items.popleft())
        supervisor.turn()
        wake = supervisor.next_wake()
        if wake is not None and (self._timer is None or wake < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(wake, self._wake)

    def _wake(self) -> None:
        """A timer that stands too early finds nothing due and is set anew."""
        self._timer = None
        self._work_soon()
