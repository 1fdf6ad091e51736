"""A device in the virtual world: a machine, switched on and off, and the agent's process on it.

Invariants: the process ends only by a fault or by being switched off, and boots again by itself, as
an init system would have it; what it needs of the world it gets through the ports. An exception
that leaves the agent is a death of its own kind, which no invariant allows.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from edgeloop_agent.core.device import Device
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.ports import Outbox
from edgeloop_simulators.virtual.device.agent_process import AgentProcess
from edgeloop_simulators.virtual.device.disk import Death, How
from edgeloop_simulators.virtual.device.machine import DeviceWorld, Machine
from edgeloop_simulators.virtual.device.runner import VirtualRunner
from edgeloop_simulators.virtual.kernel.loop import Timer
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import DeviceSpec

logger = logging.getLogger(__name__)

RESTART_S: Final = (0.5, 5.0)
"""How long an init system waits before it starts the agent again."""
POWER_OFF_S: Final = (2.0, 40.0)


class DeviceWatcher(Protocol):
    """Who looks at what devices do."""

    def device_touched(self, host: "DeviceHost") -> None: ...

    def runner_started(self, host: "DeviceHost", runner: VirtualRunner) -> None: ...


class DeviceHost:
    def __init__(self, spec: DeviceSpec, world: DeviceWorld, watcher: DeviceWatcher) -> None:
        machine = Machine(spec, world, self.die)
        self.spec, self.place, self.config = spec, machine.place, machine.config
        self.power, self.clock = machine.power, machine.clock
        self.boots = 0
        self.served_at = 0.0
        """When nothing was last wrong with the serving."""
        self.emptied_at = 0.0
        """When the outbox was last seen empty."""
        self.ended_by: How | None = None
        """How the last life of the process ended."""
        self.ended_detail = ""
        self._machine = machine
        self._world = world
        self._watcher = watcher
        self._process: AgentProcess | None = None
        self._boot_at: Timer | None = None
        self._switched_on = False
        self._radio_on = True

    @property
    def device(self) -> Device | None:
        return self._process.device if self._process is not None else None

    @property
    def snapshot(self) -> DeviceSnapshot | None:
        """The process's state as of the last thing that it did; None: there is no process."""
        return self._process.snapshot if self._process is not None else None

    @property
    def runners(self) -> tuple[VirtualRunner, ...]:
        return self._process.runners.running() if self._process is not None else ()

    @property
    def trials(self) -> dict[tuple[str, int], VirtualRunner]:
        """Runners of this life, by slot and number: evidence of probation."""
        return self._process.trials if self._process is not None else {}

    @property
    def inbox_size(self) -> int:
        return self._process.inbox_size if self._process is not None else 0

    @property
    def fetches_waiting(self) -> int:
        return self._process.fetcher.waiting if self._process is not None else 0

    @property
    def outbox(self) -> Outbox | None:
        return self._machine.outbox

    @property
    def outbox_held(self) -> int:
        outbox = self._machine.outbox
        return outbox.totals().held if outbox is not None else 0

    @property
    def appended(self) -> Mapping[str, int]:
        """How many records the outbox ever numbered, by epoch."""
        return self._machine.appended

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

    def switch_on(self) -> None:
        if not self._switched_on:
            self._switched_on = True
            self._boot()

    def switch_off(self) -> None:
        """A clean shutdown."""
        self._switched_on = False
        process = self._process
        if process is not None:
            self.guard(process.shut_down)
        if self._process is not None:
            self._end(How.SWITCHED_OFF, "")
        if self._boot_at is not None:
            self._boot_at.cancel()

    def radio(self, on: bool) -> None:
        self._radio_on = on
        if self._process is not None:
            self._process.client.radio(on)

    def begin(self, fault: Fault) -> None:
        if fault.kind is FaultKind.RUNNER_KILL:
            for runner in self.runners:
                runner.stop(kill=True)
        else:
            self._machine.begin(fault)

    def end(self, fault: Fault) -> None:
        self._machine.end(fault)

    def die(self, how: How) -> None:
        if self._process is not None:
            self._end(how, "")

    def guard(self, action: Callable[[], Any]) -> None:
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

    def runner_started(self, runner: VirtualRunner) -> None:
        self._watcher.runner_started(self, runner)

    def _boot(self) -> None:
        self._boot_at = None
        if self._process is None and self._switched_on:
            self.guard(self._start)

    def _start(self) -> None:
        """Raises Death, or _CannotStartError where the disk takes nothing: it is tried again."""
        machine = self._machine
        self.boots += 1
        epoch = f"{self.boots:04x}{machine.luck.getrandbits(48):012x}"
        try:
            process = AgentProcess(machine, epoch, self)
        except OSError as error:
            raise _CannotStartError(str(error)) from error
        self._process = process
        self.served_at = self._world.loop.now_s
        machine.see("device.booted", epoch=epoch, boots=self.boots)
        process.client.radio(self._radio_on)
        process.begin()

    def _end(self, how: How, detail: str) -> None:
        """The process is gone, whatever it was doing."""
        process, self._process = self._process, None
        self.power.after(how)
        if process is not None:
            process.ended(cleanly=how is How.SWITCHED_OFF)
        self.ended_by, self.ended_detail = how, detail
        self._machine.see("device.died", why=how.value, detail=detail)
        if self._switched_on:
            cut = how in (How.POWER_CUT, How.TORN)
            self._boot_at = self._world.loop.call_in(
                self._machine.luck.uniform(*(POWER_OFF_S if cut else RESTART_S)), self._boot
            )


class _CannotStartError(Exception):
    pass
