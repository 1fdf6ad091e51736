"""A virtual world: real agents, the real controller, simulated edges, one thread, one seed.

`World(spec, faults, seed).run()` plays the script under the faults, then without, and says what
came of it. The same three arguments give the same trace, on every machine.

Invariants: nothing in here reads a real clock, a real random source or the order of a set; the
laws are checked after every event, and the world ends at the first breach.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from edgeloop_controller.composition import Parts
from edgeloop_simulators.virtual.controller.host import ControllerHost
from edgeloop_simulators.virtual.controller.operator import Operator
from edgeloop_simulators.virtual.controller.record import ControllerRecord
from edgeloop_simulators.virtual.controller.retraining import RetrainingHost, RetrainingWorld
from edgeloop_simulators.virtual.device.artifact_server import ArtifactServer
from edgeloop_simulators.virtual.device.duty import HOUR_S, Duty
from edgeloop_simulators.virtual.device.host import DeviceHost
from edgeloop_simulators.virtual.device.machine import DeviceWorld
from edgeloop_simulators.virtual.device.runner import VirtualRunner
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.kernel.trace import TraceHash
from edgeloop_simulators.virtual.laws.breaches import Breaches
from edgeloop_simulators.virtual.laws.controller import ControllerLaws
from edgeloop_simulators.virtual.laws.convergence import Convergence
from edgeloop_simulators.virtual.laws.device import DeviceLaws
from edgeloop_simulators.virtual.laws.outcome import Outcome, Violation
from edgeloop_simulators.virtual.models import faults as model_faults
from edgeloop_simulators.virtual.network.broker_profiles import PROFILES
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.faults import Fault
from edgeloop_simulators.virtual.spec.world import WorldSpec
from edgeloop_simulators.virtual.world.database import database_directory
from edgeloop_simulators.virtual.world.fault_plan import FaultPlan, Faulty

QUIET_WINDOWS: Final = 4
"""An outbox must have been empty once within so many windows before the end."""

EVENTS_AT_ONCE_MAX: Final = 1_000
"""For each device and the controller, at one moment."""
LOOK_S: Final = 20.0
"""How often it is looked whether a world has settled."""

Until = Callable[[Seen], bool]
SeesController = Callable[[float, Parts], None]
"""Virtual seconds, and a controller that is up."""


class ControllerEnd(Faulty, Protocol):
    """What a world needs of its controller, wherever that runs."""

    record: ControllerRecord

    @property
    def is_up(self) -> bool: ...

    def stored(self, digest: str) -> bytes | None:
        """An artifact; None: there is no such, or nobody who serves it."""

    def start(self) -> None: ...

    def close(self) -> None: ...


class World:
    """`observers` are told everything that is seen; `trace_messages=False` leaves out messages
    that came as they should, for fleets that are too large to look at each. `sees_controller` is
    shown the controller after all that it does; it reads, and what it reads is in no trace."""

    def __init__(
        self,
        spec: WorldSpec,
        faults: Sequence[Fault],
        seed: int,
        observers: Sequence[Observe] = (),
        *,
        trace_messages: bool = True,
        sees_controller: SeesController | None = None,
    ) -> None:
        self.spec = spec
        self.faults = tuple(faults)
        self.seed = seed
        self.loop = EventLoop()
        self.behaviours: dict[str, Behaviour] = {}
        """By manifest digest; retraining adds to them."""
        self.hosts: dict[str, DeviceHost] = {}
        self.controller: ControllerEnd
        self.network: Network
        self.artifacts: ArtifactServer
        self.operator: Operator | None = None
        self._trace_messages = trace_messages
        self._sees_controller = sees_controller
        self._hash = TraceHash()
        self._observers: tuple[Observe, ...] = (self._hash, *observers)
        self._breaches = Breaches(self.loop)
        self._device_laws = DeviceLaws(self.loop, self._breaches)
        self._controller_laws = ControllerLaws(
            self.hosts, self._device_laws.champions_of, self._breaches
        )
        self._convergence: Convergence | None = None
        self._stop_at: Until | None = None
        self._stopped = False
        self._settled_since: float | None = None
        self._moved_s, self._moved_events = -1.0, 0
        """When time last went on, and how many events had been run by then."""

    def run(
        self, until: Until | None = None, inspect: Callable[["World"], None] | None = None
    ) -> Outcome:
        """To the end, the first breach, or the event that `until` says yes to. `inspect` is called
        before the world is taken down."""
        self._stop_at = until
        with database_directory() as directory:
            self._build(directory)
            try:
                self._play()
                if inspect is not None:
                    inspect(self)
                return self._outcome()
            finally:
                self.controller.close()

    def observe(self, seen: Seen) -> None:
        for observer in self._observers:
            observer(seen)
        if self._stop_at is not None and self._stop_at(seen):
            self._stopped = True

    @property
    def steps_undone(self) -> int:
        """Of the script."""
        return self.operator.undone if self.operator is not None else 0

    def violations(self) -> tuple[Violation, ...]:
        """What is broken up to now."""
        return self._breaches.found()

    # ---- what the laws are told -----------------------------------------------------------------

    def device_touched(self, host: DeviceHost) -> None:
        self._device_laws.touched(host)
        self._controller_laws.device_touched(host)

    def runner_started(self, host: DeviceHost, runner: VirtualRunner) -> None:
        self._device_laws.runner_started(host, runner)

    def said(self, host: ControllerHost, topic: str, payload: bytes) -> None:
        self._controller_laws.said(host, topic, payload)

    def controller_touched(self, host: ControllerHost) -> None:
        self._controller_laws.touched(host)
        if self._sees_controller is not None and host.parts is not None:
            self._sees_controller(self.loop.now_s, host.parts)

    # ---- building -------------------------------------------------------------------------------

    def _build(self, directory: Path) -> None:
        spec, streams = self.spec, Streams(self.seed, self.spec.agent.cheap_outbox)
        self.behaviours.update(self._models())
        self.network = Network(
            self.loop,
            streams,
            self.observe,
            PROFILES[spec.broker],
            trace_messages=self._trace_messages,
        )
        self.controller = self._build_controller(directory)
        self.artifacts = ArtifactServer(
            self.network, streams, self.controller.stored, spec.chunks_a_file
        )
        around = DeviceWorld(
            loop=self.loop,
            streams=streams,
            observe=self.observe,
            network=self.network,
            artifacts=self.artifacts,
            behaviours=self.behaviours,
            timing=spec.agent,
            slots=(spec.slot, *spec.more_slots),
            starts_at_wall_s=spec.starts_at_wall_s,
        )
        for device in spec.devices:
            self.hosts[device.id] = DeviceHost(device, around, self)
        self._plan(streams)

    def _build_controller(self, directory: Path) -> ControllerEnd:
        spec = self.spec
        host = ControllerHost(
            directory,
            self.loop,
            self.network,
            self.observe,
            spec.controller,
            spec.starts_at_wall_s,
            self,
            self._retraining(host_of=lambda: host),
        )
        self.operator = Operator(self.loop, host, spec.models, spec.slot, self.observe)
        self.operator.play(spec.script)
        return host

    def _retraining(self, host_of: Callable[[], ControllerHost]) -> RetrainingHost | None:
        if self.spec.retraining is None:
            return None
        around = RetrainingWorld(
            loop=self.loop,
            behaviours=self.behaviours,
            observe=self.observe,
            wake=lambda action: host_of().go_on(action),
            seed=self.seed,
        )
        return RetrainingHost(around, self.spec.retraining)

    def _models(self) -> dict[str, Behaviour]:
        """What each published version does, bad ones by the faults that say so."""
        models = {}
        for number, model in enumerate(self.spec.models, start=1):
            behaviour: Behaviour = model.behaviour
            for fault in self.faults:
                if fault.kind in model_faults.KINDS and int(fault.amount) == number:
                    behaviour = model_faults.Broken(behaviour, fault.kind)
            models[model.manifest.digest()] = behaviour
        return models

    def _plan(self, streams: Streams) -> None:
        loop, spec = self.loop, self.spec
        loop.call_at(0.0, self.controller.start)
        for host in self.hosts.values():
            luck = streams.light(f"joins/{host.spec.id}")  # so that a device less moves no other
            self._plan_device(host, luck.random() * spec.joins_over_s)
        fault_plan = FaultPlan(
            loop, self.observe, self.network, self.artifacts, self.controller, self.hosts
        )
        fault_plan.plan(self.faults)

    def _plan_device(self, host: DeviceHost, joins_at_s: float) -> None:
        device, kind = host.spec, host.spec.kind
        local_h = (self.spec.starts_at_wall_s / HOUR_S + device.utc_offset_h) % 24
        power = Duty(
            self.loop,
            kind.powered,
            local_h,
            lambda on: host.switch_on() if on else host.switch_off(),
        )
        radio = Duty(self.loop, kind.connected, local_h, host.radio)
        self.loop.call_at(joins_at_s, power.begin)
        self.loop.call_at(joins_at_s, radio.begin)

    # ---- playing --------------------------------------------------------------------------------

    def _play(self) -> None:
        end_s, step = self.spec.duration_s, self.loop.step
        if self.spec.settles_s is not None:
            self.loop.call_at(self.spec.faults_end_s, self._look_whether_settled)
        while step(end_s):
            self._check_time_passes()
            if self._breaches or self._stopped or self._has_settled():
                return
        self._check_convergence(self._breaches)

    def _check_time_passes(self) -> None:
        """EL-INV-14."""
        loop = self.loop
        if loop.now_s != self._moved_s:
            self._moved_s, self._moved_events = loop.now_s, loop.events_run
        elif loop.events_run - self._moved_events > EVENTS_AT_ONCE_MAX * (1 + len(self.hosts)):
            events = loop.events_run - self._moved_events
            self._breaches.tell("EL-INV-14", "world", f"{events} events, and time stands still")

    def _check_convergence(self, breaches: Breaches) -> None:
        quiet_since_s = self.loop.now_s - QUIET_WINDOWS * self.spec.agent.window_s
        self._convergence = Convergence(self.hosts, self.controller, breaches, quiet_since_s)
        self._convergence.check()

    def _look_whether_settled(self) -> None:
        breaches = Breaches(self.loop)
        if not self.steps_undone:
            self._check_convergence(breaches)
        if breaches or self.steps_undone:
            self._settled_since = None
        elif self._settled_since is None:
            self._settled_since = self.loop.now_s
        self.loop.call_in(LOOK_S, self._look_whether_settled)

    def _has_settled(self) -> bool:
        since, settles_s = self._settled_since, self.spec.settles_s
        return since is not None and settles_s is not None and self.loop.now_s >= since + settles_s

    def _outcome(self) -> Outcome:
        counted = self._convergence
        return Outcome(
            seed=self.seed,
            trace_hash=self._hash.hexdigest(),
            events=self.loop.events_run,
            virtual_s=self.loop.now_s,
            violations=self.violations(),
            rollouts=self.controller.record.verdicts(),
            champions={
                device_id: ", ".join(
                    str(slot.champion) for slot in device.snapshot().slots if slot.champion
                )
                for device_id, host in self.hosts.items()
                if (device := host.device) is not None
            },
            bytes_up={name: self.network.bytes_up.get(name, 0) for name in self.hosts},
            bytes_down={
                name: self.network.bytes_down.get(name, 0) + self.artifacts.bytes_down.get(name, 0)
                for name in self.hosts
            },
            telemetry_stored=counted.stored if counted else 0,
            telemetry_lost=counted.lost if counted else 0,
            telemetry_duplicated=counted.duplicated if counted else 0,
        )
