"""`make bench-scale`: a day of large fleets in virtual time, what it costs a device.

Each size runs in a process of its own, so that one's memory is not the other's. The day is
`parts.fleet_day`; the parts of the world run at once (`parts.world_in_parts`).
"""

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.parts.fleet_day import DRIFT_AT_S, HOUR_S, fleet_day
from edgeloop_simulators.virtual.parts.world_in_parts import WorldInParts

SIZES: Final = "1000,10000,100000"
SEED: Final = 1
KIB: Final = 1024


@dataclass
class Story:
    """What is heard of the day; virtual seconds."""

    began: dict[int, float]
    done: dict[int, float]
    drift_noticed_s: float | None = None
    retrained_s: float | None = None

    def __call__(self, seen: Seen) -> None:
        if seen.what == "event.rollout.started":
            self.began[seen.data["rollout"]] = seen.at_s
        elif seen.what == "event.rollout.done":
            self.done[seen.data["rollout"]] = seen.at_s
        elif seen.what == "event.drift.raised" and self.drift_noticed_s is None:
            self.drift_noticed_s = seen.at_s
        elif seen.what == "training.publishes":
            self.retrained_s = seen.at_s


@dataclass(frozen=True)
class Measured:
    devices: int
    wall_s: float
    devices_cpu_s: float
    controller_cpu_s: float
    events: int
    devices_bytes: int
    controller_bytes: int
    trace_hash: str
    violations: tuple[str, ...]
    running: dict[str, int]
    """Version → devices that run it at the end."""
    story: Story


def measure(devices: int, seed: int) -> Measured:
    """Play the day in children of this process."""
    spec = fleet_day(devices)
    story = Story({}, {})
    world = WorldInParts(spec, seed, (story,))
    began_s = time.perf_counter()
    outcome = world.run()
    wall_s, cost = time.perf_counter() - began_s, world.cost
    assert cost is not None
    return Measured(
        devices=devices,
        wall_s=wall_s,
        devices_cpu_s=cost.devices_cpu_s,
        controller_cpu_s=cost.controller_cpu_s,
        events=outcome.events,
        devices_bytes=cost.devices_bytes,
        controller_bytes=cost.controller_bytes,
        trace_hash=outcome.trace_hash,
        violations=tuple(map(str, outcome.violations)),
        running=dict(Counter(outcome.champions.values())),
        story=story,
    )


def show(measured: Sequence[Measured], console: Console) -> None:
    table = Table(
        title="A day of a fleet in virtual time", title_justify="left", title_style="bold"
    )
    table.add_column("")
    for one in measured:
        table.add_column(f"{one.devices:,} devices", justify="right")
    for name, cells in _rows(measured):
        table.add_row(name, *cells)
    console.print(table)


def _rows(measured: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    def row(name: str, *cells: str) -> tuple[str, list[str]]:
        return name, list(cells)

    return [
        row("wall time", *(f"{m.wall_s:,.0f} s" for m in measured)),
        row("CPU time, devices (2 processes)", *(f"{m.devices_cpu_s:,.0f} s" for m in measured)),
        row("CPU time, controller", *(f"{m.controller_cpu_s:,.0f} s" for m in measured)),
        row("CPU time a device", *(f"{_cpu_ms(m):.1f} ms" for m in measured)),
        row("events", *(f"{m.events:,}" for m in measured)),
        row("memory a device, its own", *(f"{_kib(m.devices_bytes, m)} KiB" for m in measured)),
        row("… the controller's", *(f"{_kib(m.controller_bytes, m)} KiB" for m in measured)),
        row("version 1 everywhere after", *(_took(m, 1) for m in measured)),
        row("drift noticed after", *(_since(m.story.drift_noticed_s) for m in measured)),
        row("retrained after", *(_since(m.story.retrained_s) for m in measured)),
        row("version 2 everywhere after", *(_took(m, 2) for m in measured)),
        row("runs version 2 at the end", *(f"{_on_second(m):,}" for m in measured)),
        row("laws broken", *("; ".join(m.violations) or "none" for m in measured)),
        row("trace", *(m.trace_hash[:16] for m in measured)),
    ]


def _cpu_ms(one: Measured) -> float:
    return (one.devices_cpu_s + one.controller_cpu_s) / one.devices * 1e3


def _kib(size_bytes: int, one: Measured) -> str:
    return f"{size_bytes / one.devices / KIB:.1f}"


def _took(one: Measured, rollout: int) -> str:
    began, done = one.story.began.get(rollout), one.story.done.get(rollout)
    return "never" if began is None or done is None else f"{(done - began) / HOUR_S:.2f} h"


def _since(at_s: float | None) -> str:
    """After the world began to move."""
    return "never" if at_s is None else f"{(at_s - DRIFT_AT_S) / HOUR_S:.2f} h"


def _on_second(one: Measured) -> int:
    return sum(count for version, count in one.running.items() if version.endswith("@2"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", default=SIZES, help=f"sizes (default: {SIZES})")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args()
    measured: list[Measured] = []
    console = Console()
    for size in (int(size) for size in chosen.devices.split(",")):
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as one_process:
            measured.append(one_process.submit(measure, size, chosen.seed).result())
        show(measured, console)


if __name__ == "__main__":
    main()
