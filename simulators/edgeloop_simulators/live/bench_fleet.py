"""`make bench-fleet`: a live fleet of several sizes, each beside the broker's own bare limit.

For each size: mosquitto and a controller of its own, N devices connected, a first version rolled
out, a second one rolled out over it, and then one telemetry message a device after the other, each
sent when the last one was acknowledged: by the controller after its commit, and by a program that
only acknowledges. The bare limits are the same kind of message from one plain publisher to one
plain subscriber, and to that program and its acknowledgement back: what a fleet does without being
one. Everything runs on this machine and shares its processors.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop_agent.ports import RunnerSaid
from edgeloop_simulators.live.bench_bare import (
    acknowledger,
    bare_exchanges_per_s,
    bare_messages_per_s,
    window,
)
from edgeloop_simulators.live.fleet import SLOT, FleetTerms, LiveFleet
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.publication import NAME, publish, roll_out, status
from edgeloop_simulators.live.runners import RunnerTerms

SIZES: Final = (100, 1000, 5000, 10_000)
MESSAGES_MIN: Final = 20_000
TIMEOUT_S: Final = 900.0
LOOK_S: Final = 0.05
TURN_A_DEVICE_S: Final = 0.000_02
"""How seldom all devices are looked through for those that can say more: looking is the benchmark's
own cost, in the fleet's process, and must stay small beside what it measures."""
QUIET_WINDOW_S: Final = 3600.0
"""The devices' own windows are kept out of the way: the benchmark makes its own."""
KIB: Final = 1024


@dataclass(frozen=True)
class Cpu:
    """Seconds of processor time."""

    fleet: float
    worker: float
    controller: float
    broker: float

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(*(now - then for now, then in zip(_values(self), _values(before), strict=True)))


@dataclass(frozen=True)
class Rollout:
    """Seconds since the request, but for the two that count from the first device's offer; None:
    not within TIMEOUT_S. `done_s`: the controller has heard of all and says so."""

    to_95_percent_s: float | None
    to_all_s: float | None
    on_all_s: float
    done_s: float | None
    cpu: Cpu


@dataclass(frozen=True)
class Throughput:
    messages_per_s: float
    cpu: Cpu


@dataclass(frozen=True)
class Measured:
    devices: int
    connect_s: float
    known_s: float
    """Until the controller has every device's hello in its database."""
    first: Rollout
    second: Rollout
    memory_per_device_kib: float
    controller: Throughput | None
    acknowledger: Throughput
    bare_messages_per_s: float = 0.0
    bare_exchanges_per_s: float = 0.0


def _values(cpu: Cpu) -> tuple[float, ...]:
    return cpu.fleet, cpu.worker, cpu.controller, cpu.broker


class _Bench:
    """One size, from the first connection to the last message."""

    def __init__(self, devices: int, directory: Path, middle: Middle, fleet: LiveFleet) -> None:
        self._devices, self._directory = devices, directory
        self._middle, self._fleet = middle, fleet
        self._process = psutil.Process()

    async def run(self) -> Measured:
        before_bytes, began = self._process.memory_info().rss, time.perf_counter()
        await self._fleet.start()
        await self._until(lambda: self._fleet.connected == self._devices)
        connect_s = time.perf_counter() - began
        await self._known()
        known_s = time.perf_counter() - began
        first, second = await self._rollout("1"), await self._rollout("2")
        grown_bytes = self._process.memory_info().rss - before_bytes
        ours = await self._throughput()
        self._middle.controller.end()
        with acknowledger(self._middle.broker.port):
            alone = await self._throughput()
        assert alone is not None
        return Measured(
            devices=self._devices,
            connect_s=connect_s,
            known_s=known_s,
            first=first,
            second=second,
            memory_per_device_kib=grown_bytes / self._devices / KIB,
            controller=ours,
            acknowledger=alone,
        )

    async def _rollout(self, version: str) -> Rollout:
        name, standing = f"{NAME}@{version}", self._fleet.standing
        await asyncio.to_thread(publish, self._middle.url, self._directory, version)
        before, began = self._cpu(), time.perf_counter()
        rollout = await asyncio.to_thread(roll_out, self._middle.url, version, compare=False)
        await self._until(lambda: name in standing.all_after_s)
        on_all_s, cpu = time.perf_counter() - began, self._cpu().since(before)
        is_done = await self._done(rollout)
        return Rollout(
            standing.most_after_s.get(name),
            standing.all_after_s.get(name),
            on_all_s,
            time.perf_counter() - began if is_done else None,
            cpu,
        )

    async def _done(self, rollout: int) -> bool:
        deadline = time.perf_counter() + TIMEOUT_S
        while await asyncio.to_thread(status, self._middle.url, rollout) != "done":
            if time.perf_counter() > deadline:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def _throughput(self) -> Throughput | None:
        """None: what the rollout left was not acknowledged in time."""
        if not await self._until(lambda: self._fleet.held() == 0):
            return None
        rounds = max(1, MESSAGES_MIN // self._devices)
        body = window(np.random.default_rng(0))
        left = dict.fromkeys(self._fleet.devices.values(), rounds)
        turn_s = TURN_A_DEVICE_S * self._devices
        before, began = self._cpu(), time.perf_counter()
        while left:
            for device in [one for one in left if one.outbox.is_empty]:
                if left[device] == 0:
                    del left[device]
                    continue
                left[device] -= 1
                device.post(RunnerSaid(SLOT, body))
            if time.perf_counter() - began > TIMEOUT_S:
                return None
            await asyncio.sleep(turn_s)
        seconds = time.perf_counter() - began
        return Throughput(rounds * self._devices / seconds, self._cpu().since(before))

    async def _known(self) -> None:
        while True:
            online = await asyncio.to_thread(_online, self._middle.url)
            if online >= self._devices:
                return
            await asyncio.sleep(LOOK_S)

    async def _until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.perf_counter() + TIMEOUT_S
        while not condition():
            if time.perf_counter() > deadline:
                return False
            self._fleet.check()
            await asyncio.sleep(LOOK_S)
        return True

    def _cpu(self) -> Cpu:
        own = self._process.cpu_times()
        workers = [
            child.cpu_times()
            for child in self._process.children()
            if "multiprocessing" in " ".join(child.cmdline())
        ]
        return Cpu(
            own.user + own.system,
            sum(times.user + times.system for times in workers),
            self._middle.controller.cpu_s(),
            self._middle.broker.cpu_s(),
        )


def _online(url: str) -> int:
    try:
        with Client(url) as client:
            document: dict[str, Any] = client.get("/health")
    except ApiError:
        return 0
    return int(document["devices"]["online"])


async def measure(devices: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="edgeloop-bench-") as made:
        directory = Path(made)
        with closing(SharedInference()) as inference:
            await inference.runtime()
            async with Middle(directory / "middle", devices + 64) as middle:
                terms = FleetTerms(
                    middle.url,
                    middle.address,
                    devices,
                    runners=RunnerTerms(examples_per_s=5.0, window_s=QUIET_WINDOW_S),
                )
                fleet = LiveFleet(terms, inference)
                try:
                    measured = await _Bench(devices, directory, middle, fleet).run()
                finally:
                    await fleet.close()
                messages = max(MESSAGES_MIN, devices)
                bare = middle.broker.port, messages, devices
                one_way = await asyncio.to_thread(bare_messages_per_s, *bare)
                both_ways = await asyncio.to_thread(bare_exchanges_per_s, *bare)
    return replace(measured, bare_messages_per_s=one_way, bare_exchanges_per_s=both_ways)


def show(rows: list[Measured], console: Console) -> None:
    table = Table(title="A live fleet", title_justify="left", title_style="bold")
    table.add_column("")
    for row in rows:
        table.add_column(f"{row.devices:,} devices", justify="right")
    for name, cell in CELLS.items():
        table.add_row(name, *(cell(row) for row in rows))
    console.print(table)


def _rollout(rollout: Rollout) -> str:
    return f"{_known(rollout.to_95_percent_s)} / {_known(rollout.to_all_s)} s"


def _known(seconds: float | None) -> str:
    return f"over {TIMEOUT_S:.0f}" if seconds is None else f"{seconds:.1f}"


def _rate(row: Measured, through: Throughput | None) -> str:
    if through is None:
        return "-"
    slower = row.bare_exchanges_per_s / through.messages_per_s
    return f"{through.messages_per_s:,.0f}/s (1/{slower:.1f})"


def _through_broker(row: Measured) -> str:
    """A record and its acknowledgement are two messages to the broker."""
    both = 2 * row.acknowledger.messages_per_s
    return f"{both:,.0f}/s (1/{row.bare_messages_per_s / both:.1f})"


def _cpu(cpu: Cpu) -> str:
    return " / ".join(f"{value:.1f}" for value in _values(cpu)) + " s"


CELLS: Final[dict[str, Callable[[Measured], str]]] = {
    "all connected": lambda row: f"{row.connect_s:.1f} s",
    "all known to the controller": lambda row: f"{row.known_s:.1f} s",
    "first version on 95% / all": lambda row: _rollout(row.first),
    "second version on 95% / all": lambda row: _rollout(row.second),
    "  since the request: on all / known to the controller": lambda row: (
        f"{row.second.on_all_s:.1f} / {_known(row.second.done_s)} s"
    ),
    "  processor: fleet / worker / controller / broker": lambda row: _cpu(row.second.cpu),
    "memory a device": lambda row: f"{row.memory_per_device_kib:.0f} KiB",
    "telemetry: bare limit, acknowledged": lambda row: f"{row.bare_exchanges_per_s:,.0f}/s",
    "  fleet, by a bare acknowledger": lambda row: _rate(row, row.acknowledger),
    "  fleet, by the controller": lambda row: _rate(row, row.controller),
    "  processor: fleet / worker / controller / broker ": lambda row: (
        _cpu(row.controller.cpu) if row.controller else "-"
    ),
    "messages through the broker: bare limit, one way": lambda row: (
        f"{row.bare_messages_per_s:,.0f}/s"
    ),
    "  fleet, telemetry and acknowledgements": _through_broker,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-fleet")
    parser.add_argument("sizes", nargs="?", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console, rows = Console(), []
    for size in (int(size) for size in options.sizes.split(",")):
        rows.append(asyncio.run(measure(size)))
        console.print(f"{size:,} devices measured", highlight=False)
    show(rows, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
