"""The headline table: one rollout over a fleet, under four conditions, of three kinds of version.

`python -m edgeloop_simulators.bench.chaos [--devices 1000] [--jobs 2] [--seed 1] [--json FILE]`

Every cell is a virtual world of its own (ADR 0009): the real agents and the real controller, with
the laws of docs/spec/invariants.md checked after every event. The figures are the truth of the
world, not what the controller believes. Exit code 1 when a law was broken, a device was wedged,
telemetry was lost or doubled, or a bad version was not stopped.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from edgeloop_simulators.virtual.run.play import Run, play
from edgeloop_simulators.virtual.scenario.load import scenario_of

SITES: Final = 10
HOUR_S: Final = 3600.0
ROLLOUT_AT_S: Final = HOUR_S
FAULTS_LAST_S: Final = 2 * HOUR_S
LOSS: Final = 0.05
CUT_EVERY_S: Final = 60.0
CONDITIONS: Final = ("clean", "5% loss", "partition", "power cuts")
MODELS: Final[dict[str, dict[str, Any]]] = {
    "good": {},
    "silently bad": {"goes": "wrong"},
    "crashing": {"goes": "crash"},
}


@dataclass(frozen=True)
class Cell:
    condition: str
    model: str
    devices: int
    status: str
    exposed: int
    false_rollbacks: int
    to_95_percent_s: float | None
    bytes_up_per_device_day: float
    wedged: int
    telemetry_lost: int
    telemetry_doubled: int
    violations: tuple[str, ...]
    cpu_s: float

    @property
    def holds(self) -> bool:
        spotless = not (
            self.wedged or self.telemetry_lost or self.telemetry_doubled or self.violations
        )
        return spotless and self.status == ("done" if self.model == "good" else "halted")


def run_cell(condition: str, model: str, devices: int, seed: int) -> Cell:
    logging.disable(logging.CRITICAL)  # a world's agents and controller tell of every fault
    began = time.process_time()
    run = play(scenario_of(document(condition, model, devices), Path.cwd()), seed)
    return _cell(condition, model, devices, run, time.process_time() - began)


def document(condition: str, model: str, devices: int) -> dict[str, Any]:
    """The scenario of one cell, as a file would have it."""
    each, rest = divmod(devices, SITES)
    return {
        "world": "virtual",
        "title": f"{condition}, {model}",
        "duration": "5 h",
        "joins_over": "10 min",
        "sites": [
            {"name": _site(number), "devices": each + (number < rest)}
            for number in range(SITES)
            if each + (number < rest)
        ],
        "models": [
            {"kind": "synthetic", "name": "chaos@1", "size": "200 kB"},
            {"kind": "synthetic", "name": "chaos@2", "size": "200 kB", **MODELS[model]},
        ],
        "steps": [
            {
                "do": "roll_out",
                "model": "chaos@1",
                "waves": ["100%"],
                "terms": {"soak_s": 60, "probation": {"min_s": 60}},
            },
            {
                "do": "roll_out",
                "at": f"{ROLLOUT_AT_S / HOUR_S:g} h",
                "model": "chaos@2",
                "waves": ["1%", "10%", "50%", "100%"],
                "terms": {"soak_s": 600, "probation": {"min_s": 120}},
            },
        ],
        "agent": {"progress": "60 s", "window": "10 min"},
        "controller": {"tick": "1 min", "ingest": "2 s"},
        "faults": list(_faults(condition)),
    }


def _faults(condition: str) -> Iterator[dict[str, Any]]:
    """From the rollout's start on, over two hours."""
    during = {"at": _at(ROLLOUT_AT_S), "duration": f"{FAULTS_LAST_S:g} s"}
    if condition == "5% loss":
        yield {"kind": "drop", "target": "*", "amount": LOSS, **during}
    elif condition == "partition":
        # A third of the sites cannot be reached for most of the rollout.
        for number in range(0, SITES, 3):
            yield {"kind": "partition", "target": f"site:{_site(number)}", **during}
    elif condition == "power cuts":
        # A site a minute, in turn; every third in the middle of a write.
        for number in range(int(FAULTS_LAST_S / CUT_EVERY_S)):
            torn = number % 3 == 0
            yield {
                "kind": "torn_write" if torn else "power_cut",
                "target": f"site:{_site(number % SITES)}",
                "at": _at(ROLLOUT_AT_S + number * CUT_EVERY_S),
                "duration": f"{CUT_EVERY_S:g} s",
                "amount": number % 7 + 1 if torn else number % 5,
            }


def _cell(condition: str, model: str, devices: int, run: Run, cpu_s: float) -> Cell:
    recording, outcome = run.recording, run.recording.outcome
    rollout = recording.rollouts[-1]
    return Cell(
        condition=condition,
        model=model,
        devices=devices,
        status=rollout.last["status"],
        exposed=len(rollout.exposed),
        false_rollbacks=len(recording.false_rollbacks()),
        to_95_percent_s=recording.time_to_share_s(rollout) if model == "good" else None,
        bytes_up_per_device_day=recording.bytes_up_per_device_day(),
        wedged=len(recording.wedged()),
        telemetry_lost=outcome.telemetry_lost,
        telemetry_doubled=outcome.telemetry_duplicated,
        violations=tuple(map(str, outcome.violations)),
        cpu_s=cpu_s,
    )


def _site(number: int) -> str:
    return f"site-{number}"


def _at(at_s: float) -> str:
    return f"{at_s:g} s"


def show(cells: list[Cell], console: Console) -> None:
    table = Table(title=f"A rollout to {cells[0].devices:,} devices", title_justify="left")
    for heading in ("condition", "version", "ends"):
        table.add_column(heading)
    for heading in (
        "exposed", "false rollbacks", "to 95%", "KB up a device and day", "wedged",
        "telemetry lost", "doubled",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for cell in cells:
        to_95 = "" if cell.to_95_percent_s is None else f"{cell.to_95_percent_s / 60:.0f} min"
        exposed = f"{cell.exposed} ({cell.exposed / cell.devices:.1%})"
        table.add_row(
            cell.condition,
            cell.model,
            cell.status,
            exposed if cell.model != "good" else "",
            str(cell.false_rollbacks),
            to_95,
            f"{cell.bytes_up_per_device_day / 1000:.0f}",
            str(cell.wedged),
            str(cell.telemetry_lost),
            str(cell.telemetry_doubled),
        )
    console.print(table)
    for cell in cells:
        for violation in cell.violations:
            console.print(f"{cell.condition}, {cell.model}: {violation}", style="red")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    wanted = [(condition, model) for condition in CONDITIONS for model in MODELS]
    cells: list[Cell] = []
    with (
        ProcessPoolExecutor(options.jobs) as pool,
        console.status("playing") as status,
    ):
        futures = [pool.submit(run_cell, *one, options.devices, options.seed) for one in wanted]
        for number, future in enumerate(futures, start=1):
            cells.append(future.result())
            status.update(f"{number} of {len(wanted)} worlds played")
    show(cells, console)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    return 0 if all(cell.holds for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
