"""A fleet of live devices in this process: their classes, their links, and where they stand.

Invariants: devices are known by their ids alone, so that any number of processes join one run, each
with its own share of the ids and no word between them; `close` ends every device and every link.
"""

import asyncio
import gc
import math
import platform
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.limits import MIB
from edgeloop_protocol.messages import Inventory
from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.live.connections import Connections
from edgeloop_simulators.live.descriptors import need_descriptors
from edgeloop_simulators.live.device import DISK_BYTES, LiveDevice, Surroundings
from edgeloop_simulators.live.downloads import CONNECTIONS_MAX, ArtifactServer
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.proxy import HOST, Link, LinkProxy
from edgeloop_simulators.live.runners import RunnerTerms, SharedRunners

SLOT: Final = "main"
DIRECT: Final = "direct"
"""The class of the devices that have no other: no proxy stands in their way."""
IDLE: Final = SlotState.IDLE.value
MOST: Final = 0.95
HEARTBEAT_TIMEOUT_S: Final = 60.0
"""Longer than an agent's own: the devices share a thread, and a burst may hold all of them up."""
MEMORY_BYTES: Final = 512 * MIB
YOUNG_OBJECTS: Final = 50_000
"""So many new ones before a collection looks at them: a burst makes ten thousand devices' worth of
states that stay, and hardly any cycles."""


@dataclass(frozen=True, slots=True)
class Share:
    """The `part`-th of `parts` processes that run one fleet, from 1."""

    part: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.part <= self.parts:
            raise FleetError(f"share {self.part}/{self.parts}: it goes from 1/N to N/N")

    def of(self, devices: int) -> range:
        return range(devices * (self.part - 1) // self.parts, devices * self.part // self.parts)


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """So much of the fleet is behind this link; every device of it has the label `class`."""

    name: str
    share: float
    link: Link = field(default_factory=Link)


@dataclass(frozen=True, slots=True)
class FleetTerms:
    """`devices` is the whole fleet, over all processes that share it."""

    controller_url: str
    broker: BrokerAddress
    devices: int
    share: Share = field(default_factory=Share)
    prefix: str = "live-"
    classes: tuple[DeviceClass, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    runners: RunnerTerms = field(default_factory=RunnerTerms)

    def ids(self) -> tuple[str, ...]:
        digits = len(str(max(self.devices - 1, 0)))
        return tuple(f"{self.prefix}{n:0{digits}d}" for n in self.share.of(self.devices))

    def class_of(self, device_id: str) -> str:
        drawn = zlib.crc32(device_id.encode()) / 2**32
        for one in self.classes:
            if drawn < one.share:
                return one.name
            drawn -= one.share
        return DIRECT


@dataclass(slots=True)
class Route:
    """The way of one class to broker and artifact server; `proxies` is empty for the direct one."""

    connections: Connections
    server: ArtifactServer
    proxies: tuple[LinkProxy, ...] = ()

    def become(self, link: Link) -> None:
        for proxy in self.proxies:
            proxy.become(link)

    def reset(self) -> None:
        for proxy in self.proxies:
            proxy.reset()


@dataclass(slots=True)
class Standing:
    """Where the fleet stands, by what the devices' journals hold."""

    champions: Counter[str] = field(default_factory=Counter)
    """`name@version` → devices that committed it."""
    states: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    """`name@version: cause` → how often a device rolled it back."""
    offered_at: dict[str, float] = field(default_factory=dict)
    """When the first device took up a version, monotonic; the two below count from then."""
    most_after_s: dict[str, float] = field(default_factory=dict)
    """When MOST of the devices had committed it."""
    all_after_s: dict[str, float] = field(default_factory=dict)

    def move(self, before: DeviceSnapshot, after: DeviceSnapshot, devices: int, now: float) -> None:
        """One device's journal went from one state to another."""
        old, new = (one.slots[0] if one.slots else None for one in (before, after))
        self.states[old.state.value if old else IDLE] -= 1
        self.states[new.state.value if new else IDLE] += 1
        if new is None:
            return
        if new.candidate is not None:
            self.offered_at.setdefault(str(new.candidate.offer.ref), now)
        if old is not None and old.champion is not None:
            self.champions[str(old.champion)] -= 1
        if new.champion is not None:
            self._committed(str(new.champion), devices, now)
        if new.refused is not None and (old is None or new.refused != old.refused):
            self.refusals[f"{new.refused.version}: {new.refused.cause}"] += 1

    def _committed(self, version: str, devices: int, now: float) -> None:
        self.champions[version] += 1
        after_s = now - self.offered_at.get(version, now)
        if self.champions[version] >= math.ceil(MOST * devices):
            self.most_after_s.setdefault(version, after_s)
        if self.champions[version] >= devices:
            self.all_after_s.setdefault(version, after_s)


class LiveFleet:
    """`start`, then let the loop run; `close` in any case. Construct it on the running loop."""

    def __init__(self, terms: FleetTerms, inference: SharedInference) -> None:
        self.terms = terms
        self.standing = Standing()
        self.devices: dict[str, LiveDevice] = {}
        self.routes: dict[str, Route] = {}
        self._inference = inference
        self._clock = SystemClock()
        self.runners = SharedRunners(inference, self._clock, terms.runners)
        self._running: asyncio.Task[None] | None = None
        self._gc_thresholds = gc.get_threshold()

    async def start(self) -> None:
        """Return when every device has begun to connect. Raises FleetError."""
        ids = self.terms.ids()
        proxied = sum(self.terms.class_of(one) != DIRECT for one in ids)
        kinds = len(self.terms.classes) + 1
        need_descriptors(len(ids) + 2 * proxied + 3 * kinds * CONNECTIONS_MAX)
        inventory = Inventory(
            agent_version="live",
            architecture=platform.machine(),
            python=platform.python_version(),
            runtimes=(await self._inference.runtime(),),
            memory_bytes=MEMORY_BYTES,
            disk_free_bytes=DISK_BYTES,
            cpu_count=1,
            memory_total_bytes=MEMORY_BYTES,
            disk_total_bytes=DISK_BYTES,
        )
        around = {name: await self._around(name, inventory) for name in self._class_names()}
        self._running = asyncio.get_running_loop().create_task(self.runners.run())
        for device_id in ids:
            name = self.terms.class_of(device_id)
            labels = {**self.terms.labels, "class": name}
            device = LiveDevice(around[name], device_id, labels)
            self.devices[device_id] = device
            self.standing.states[IDLE] += 1
            device.begin()
        gc.set_threshold(YOUNG_OBJECTS, *self._gc_thresholds[1:])
        gc.freeze()  # they live as long as the fleet: a collection need not walk through them

    async def close(self) -> None:
        gc.set_threshold(*self._gc_thresholds)
        gc.unfreeze()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.runners.close()
        for device in self.devices.values():
            device.end()
        for route in self.routes.values():
            route.connections.close()
            route.server.close()
            for proxy in route.proxies:
                await proxy.close()

    @property
    def connected(self) -> int:
        return sum(device.connected_now for device in self.devices.values())

    @property
    def connects(self) -> int:
        return sum(route.connections.connects for route in self.routes.values())

    def connects_in_a_second_max(self, since: float = 0.0) -> int:
        """The most in any one second from `since` on, in the loop's time."""
        total: Counter[int] = Counter()
        for route in self.routes.values():
            total.update(route.connections.connects_in)
        return max((made for second, made in total.items() if second >= since), default=0)

    @property
    def published(self) -> int:
        return sum(route.connections.published for route in self.routes.values())

    @property
    def received(self) -> int:
        return sum(route.connections.received for route in self.routes.values())

    def held(self) -> int:
        """Telemetry records that no acknowledgement has emptied yet."""
        return sum(device.outbox.totals().held for device in self.devices.values())

    def check(self) -> None:
        """Raises what ended the runners' task, if anything did."""
        if self._running is not None and self._running.done() and not self._running.cancelled():
            self._running.result()

    def _class_names(self) -> tuple[str, ...]:
        return (DIRECT, *(one.name for one in self.terms.classes))

    async def _around(self, name: str, inventory: Inventory) -> Surroundings:
        links = {one.name: one.link for one in self.terms.classes}
        route = await self._route(links.get(name))
        self.routes[name] = route
        return Surroundings(
            config=self._config(),
            clock=self._clock,
            connections=route.connections,
            server=route.server,
            runners=self.runners,
            inventory=inventory,
            changed=self._changed,
        )

    async def _route(self, link: Link | None) -> Route:
        url, broker = self.terms.controller_url, self.terms.broker
        if link is None:
            return Route(Connections(broker), ArtifactServer(url))
        parts = urlsplit(url)
        far = LinkProxy(broker.host, broker.port, link)
        files = LinkProxy(parts.hostname or HOST, parts.port or 80, link)
        near = BrokerAddress(HOST, await far.start(), broker.username, broker.password)
        place = parts._replace(netloc=f"{HOST}:{await files.start()}")
        return Route(Connections(near), ArtifactServer(urlunsplit(place)), (far, files))

    def _config(self) -> AgentConfig:
        """What all devices share. Their source is never opened: the worker has the examples."""
        return AgentConfig.model_validate(
            {
                "device_id": "template",
                "state_dir": "/nonexistent",
                "controller_url": self.terms.controller_url,
                "trust": {"unsigned": True},
                "plain": True,
                "slots": {SLOT: {"source": {"kind": "replay", "path": "/nonexistent"}}},
                "limits": {"heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S},
                "telemetry": {"window_s": self.terms.runners.window_s},
            }
        )

    def _changed(self, _device: LiveDevice, before: DeviceSnapshot, after: DeviceSnapshot) -> None:
        devices = len(self.terms.share.of(self.terms.devices))
        self.standing.move(before, after, devices, self._clock.monotonic())
