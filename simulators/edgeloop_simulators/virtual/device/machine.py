"""The machine that an agent runs on: what is still there when its process has died.

Invariant: the disk, the outbox's database, the clock and the place in the network outlive every
process; a wrong clock stays wrong until its fault ends.
"""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_agent.ports import Outbox
from edgeloop_agent.shell.outbox import SqliteOutbox
from edgeloop_agent.shell.outbox_schema import make_schema
from edgeloop_protocol.messages import Inventory, RuntimeInfo
from edgeloop_simulators.twins.outbox import MemoryOutbox
from edgeloop_simulators.virtual.device import disk as device_disk
from edgeloop_simulators.virtual.device.agent_config import config_of
from edgeloop_simulators.virtual.device.artifact_server import ArtifactServer
from edgeloop_simulators.virtual.device.disk import DeviceDisk, How
from edgeloop_simulators.virtual.device.outbox_ledger import OutboxLedger
from edgeloop_simulators.virtual.kernel.clock import VirtualClock
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import AgentTiming, DeviceSpec

CLOCKS: Final = frozenset({FaultKind.CLOCK_1970, FaultKind.CLOCK_FUTURE, FaultKind.CLOCK_JUMP})
THIRTY_YEARS_S: Final = 30 * 365.25 * 86_400.0


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
    slots: tuple[str, ...]
    starts_at_wall_s: float


class Machine:
    """`die` is called when a fault ends the process outside any operation of the disk."""

    __slots__ = (
        "_database",
        "_memory",
        "appended",
        "clock",
        "config",
        "luck",
        "outbox",
        "place",
        "power",
        "spec",
        "world",
    )

    def __init__(self, spec: DeviceSpec, world: DeviceWorld, die: Callable[[How], None]) -> None:
        self.spec = spec
        self.world = world
        self.luck = world.streams.of_device(f"device/{spec.id}")
        self.power = DeviceDisk(spec.kind.disk_bytes, self.luck, die)
        self.clock = VirtualClock(world.loop, world.starts_at_wall_s)
        self.place = Place(spec.id, spec.site, spec.kind.name, spec.kind.link)
        self.config = config_of(spec, world.timing, world.slots)
        self.appended: dict[str, int] = {}
        """How many records the outbox ever numbered, by epoch."""
        self.outbox: Outbox | None = None
        """As the last process opened it; None: none did yet."""
        self._database: sqlite3.Connection | None = None
        self._memory: MemoryOutbox | None = None

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

    def end(self, fault: Fault) -> None:
        if fault.kind in device_disk.KINDS:
            self.power.end(fault)
        elif fault.kind in CLOCKS:
            self.clock.set_right()

    def open_outbox(self, epoch: str) -> Outbox:
        """What is in it stays over all processes."""
        self.outbox = OutboxLedger(self._outbox(epoch), self.power.problem, self.appended)
        return self.outbox

    def inventory(self) -> Inventory:
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
            memory_total_bytes=kind.memory_bytes,
            disk_total_bytes=kind.disk_bytes,
        )

    def see(self, what: str, /, **data: Any) -> None:
        """Show the world that something happened here."""
        self.world.observe(Seen(self.world.loop.now_s, self.spec.id, what, data))

    def _outbox(self, epoch: str) -> Outbox:
        max_bytes = self.world.timing.outbox_max_bytes
        if self.world.timing.cheap_outbox:
            if self._memory is None:
                self._memory = MemoryOutbox(epoch, max_bytes)
            else:
                self._memory.restart(epoch)
            return self._memory
        if self._database is None:
            self._database = sqlite3.connect(":memory:", isolation_level=None)
            make_schema(self._database)
        return SqliteOutbox(self._database, epoch, max_bytes)
