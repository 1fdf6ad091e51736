"""One run of `edgeloop-sim fleet`: devices, what happens to them, and what was reached.

Invariants: whatever ends it (its time, its aim, Ctrl-C, an error), every process and connection of
the run is ended before it returns; the figures are those of this process's share of the devices.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop_simulators.bench.model import BASELINE_ROWS, FEATURES
from edgeloop_simulators.errors import FleetError, SimulatorError
from edgeloop_simulators.live.fleet import FleetTerms, LiveFleet
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.publication import publish, roll_out
from edgeloop_simulators.live.real_agents import RealAgents
from edgeloop_simulators.live.script import Act, check_acts, play

LOOK_S: Final = 0.2
SHOW_EVERY_S: Final = 1.0
SPARE_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """`fleet.controller_url` is empty for a run of its own: mosquitto, a controller and a rollout.

    `until`: `name@version` that all devices shall have committed; `for_s`: at most so long.
    """

    fleet: FleetTerms
    acts: tuple[Act, ...] = ()
    for_s: float | None = None
    until: str | None = None
    real_agents: int = 0
    examples: Path | None = None

    @property
    def is_local(self) -> bool:
        return not self.fleet.controller_url


@dataclass(frozen=True, slots=True)
class Figures:
    """Where a run stands. Rates are since the beginning."""

    after_s: float
    devices: int
    connected: int
    connects: int
    connects_in_a_second_max: int
    messages_up: int
    messages_down: int
    downloads: int
    bytes_down: int
    inferences: int
    records_held: int
    champions: dict[str, int]
    states: dict[str, int]
    refusals: dict[str, int]
    seconds_to_95_percent: dict[str, float]
    seconds_to_all: dict[str, float]
    connect_s: float | None
    rss_bytes: int
    cpu_s: float
    real_agents: int
    real_champions: dict[str, str]


class Session:
    """`run` it once, on the running loop."""

    def __init__(self, terms: SessionTerms) -> None:
        check_acts(terms.acts, terms.fleet.classes, terms.is_local)
        if terms.real_agents and not terms.is_local and terms.examples is None:
            raise FleetError(
                "--real-agents need something to replay: give --examples FILE.npy, whose rows "
                "are what the models take"
            )
        self._terms = terms
        self._began_at = time.monotonic()
        self._connect_s: float | None = None

    async def run(
        self, show: Callable[[Figures], None], tell: Callable[[str], None]
    ) -> tuple[Figures, bool]:
        """The last figures, and whether it came to what it waited for."""
        async with AsyncExitStack() as stack:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeloop-live-"))
            )
            middle, terms = await self._placed(stack, directory)
            if middle is not None:
                tell(
                    f"controller {middle.url}, broker {middle.address}; another process joins with "
                    f"--join {middle.url} --broker {middle.address}"
                )
            inference = stack.enter_context(contextlib.closing(SharedInference(terms.examples)))
            real = self._real_agents(stack, directory, terms)
            self._began_at = time.monotonic()
            async with _running(LiveFleet(terms.fleet, inference)) as fleet:
                script = asyncio.get_running_loop().create_task(
                    self._script(fleet, middle, directory, terms)
                )
                try:
                    reached = await self._watch(fleet, real, script, show)
                    return self._figures(fleet, real), reached
                finally:
                    script.cancel()
                    await asyncio.gather(script, return_exceptions=True)

    async def _script(
        self, fleet: LiveFleet, middle: Middle | None, directory: Path, terms: SessionTerms
    ) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(play(terms.acts, fleet.routes, terms.fleet.classes, middle))
            if middle is not None:
                group.create_task(self._first_rollout(middle, directory, len(fleet.devices)))

    async def _placed(
        self, stack: AsyncExitStack, directory: Path
    ) -> tuple[Middle | None, SessionTerms]:
        """With a broker and a controller: those joined, or of its own."""
        terms = self._terms
        if not terms.is_local:
            return None, terms
        middle = Middle(directory / "middle", terms.fleet.devices + SPARE_CONNECTIONS)
        await stack.enter_async_context(middle)
        fleet = replace(terms.fleet, controller_url=middle.url, broker=middle.address)
        return middle, replace(terms, fleet=fleet)

    def _real_agents(
        self, stack: AsyncExitStack, directory: Path, terms: SessionTerms
    ) -> RealAgents:
        examples = terms.examples or directory / "examples.npy"
        if terms.examples is None:
            rows = np.random.default_rng(0).normal(size=(BASELINE_ROWS, FEATURES))
            np.save(examples, rows.astype(np.float32))
        fleet = terms.fleet
        agents = RealAgents(
            directory / "agents", fleet.controller_url, fleet.broker, examples, fleet.labels
        )
        stack.callback(agents.close)
        for number in range(terms.real_agents):
            agents.start(f"{fleet.prefix}real-{fleet.share.part}-{number}")
        return agents

    async def _first_rollout(self, middle: Middle, directory: Path, devices: int) -> None:
        """A run of its own has something to roll out as soon as its devices are known."""
        await asyncio.to_thread(publish, middle.url, directory, "1")
        while not await asyncio.to_thread(_knows, middle.url, devices):
            await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(roll_out, middle.url, "1")

    async def _watch(
        self,
        fleet: LiveFleet,
        real: RealAgents,
        script: "asyncio.Task[None]",
        show: Callable[[Figures], None],
    ) -> bool:
        terms, shown_at = self._terms, float("-inf")
        while True:
            self._look(fleet)
            fleet.check()
            real.check()
            if script.done():
                _raise_first(script)
            now = time.monotonic()
            if now - shown_at >= SHOW_EVERY_S:
                shown_at = now
                show(self._figures(fleet, real))
            if terms.until is not None and self._has(fleet, real, terms.until):
                return True
            if terms.for_s is not None and now - self._began_at >= terms.for_s:
                return terms.until is None
            await asyncio.sleep(LOOK_S)

    def _has(self, fleet: LiveFleet, real: RealAgents, version: str) -> bool:
        return fleet.standing.champions[version] >= len(fleet.devices) and list(
            real.champions().values()
        ).count(version) == len(real)

    def _look(self, fleet: LiveFleet) -> None:
        if self._connect_s is None and fleet.connected == len(fleet.devices):
            self._connect_s = time.monotonic() - self._began_at

    def _figures(self, fleet: LiveFleet, real: RealAgents) -> Figures:
        process, standing = psutil.Process(), fleet.standing
        times = process.cpu_times()
        servers = [route.server for route in fleet.routes.values()]
        return Figures(
            after_s=round(time.monotonic() - self._began_at, 1),
            devices=len(fleet.devices),
            connected=fleet.connected,
            connects=fleet.connects,
            connects_in_a_second_max=fleet.connects_in_a_second_max(),
            messages_up=fleet.published,
            messages_down=fleet.received,
            downloads=sum(server.requests for server in servers),
            bytes_down=sum(server.bytes_down for server in servers),
            inferences=fleet.runners.examples,
            records_held=fleet.held(),
            champions=_positive(standing.champions),
            states=_positive(standing.states),
            refusals=dict(standing.refusals),
            seconds_to_95_percent={k: round(v, 1) for k, v in standing.most_after_s.items()},
            seconds_to_all={k: round(v, 1) for k, v in standing.all_after_s.items()},
            connect_s=None if self._connect_s is None else round(self._connect_s, 1),
            rss_bytes=process.memory_info().rss,
            cpu_s=round(times.user + times.system, 1),
            real_agents=len(real),
            real_champions=real.champions(),
        )


@asynccontextmanager
async def _running(fleet: LiveFleet) -> AsyncIterator[LiveFleet]:
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.close()


def _raise_first(task: "asyncio.Task[None]") -> None:
    """What ended a task, out of the group that it came in."""
    try:
        task.result()
    except* SimulatorError as group:
        raise group.exceptions[0] from group
    except* ApiError as group:
        raise FleetError(f"the controller refused: {group.exceptions[0]}") from group


def _knows(url: str, devices: int) -> bool:
    with Client(url) as client:
        document: dict[str, Any] = client.get("/health")
        return int(document["devices"]["total"]) >= devices


def _positive(counted: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counted.items()) if count}
