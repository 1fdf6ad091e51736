"""`make torture`: faults at every step of an update, and power cuts by the thousand.

Six parts, each with what it found: every operation on a strict disk, of an update and of the store
of verified metadata; every system call under strace, with quick runners and then, for kills, with
real ones; power cuts on ext4; each fsync left out, which must be found; and telemetry, exactly once
while agents, broker and controller are killed.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgeloop_simulators.torture import (
    exactly_once,
    ext4_image,
    strict_disk,
    striker,
    syscalls,
    trust_store,
)
from edgeloop_simulators.torture.exactly_once import ExactlyOnce, Plan
from edgeloop_simulators.torture.fsyncs import FSYNCS, By, prove
from edgeloop_simulators.torture.power import PowerCuts
from edgeloop_simulators.torture.shelf import fill
from edgeloop_simulators.torture.syscalls import Fault, Syscalls

CUTS: Final = 2000
SEED: Final = 1
PROBLEMS_SHOWN_MAX: Final = 5
MEMORY_DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - a kill needs no disk, only speed
FAILED: Final = 1


@dataclass(frozen=True)
class Extent:
    """`failures`: where disks are kept that a power cut left broken; None: nowhere."""

    cuts: int
    records: int
    jobs: int
    seed: int
    failures: Path | None = None


class Torture:
    def __init__(self, shelf: Path, extent: Extent, console: Console) -> None:
        self._shelf = shelf
        self._extent = extent
        self._console = console
        self.failures = 0

    def run(self, only: str) -> None:
        """`only`: words of the parts to play; empty: all."""
        for part, why_not, play in (
            ("every operation on a strict disk", "", self._strict_disk),
            ("every operation of the trust store", "", self._trust_store),
            ("every system call, quick runners", syscalls.why_not(), self._quick_calls),
            ("a kill at every system call, real runners", syscalls.why_not(), self._real_calls),
            (f"{self._extent.cuts:,} power cuts on ext4", ext4_image.why_not(), self._power_cuts),
            ("each fsync left out", "", self._fsyncs),
            (
                f"telemetry: {self._extent.records:,} records, exactly once, under kill -9",
                exactly_once.why_not(),
                self._exactly_once,
            ),
        ):
            if only in part:
                self._part(part, why_not, play)

    def _part(self, part: str, why_not: str, play: Callable[[], Iterator[str]]) -> None:
        if why_not:
            self._console.print(f"[yellow]skipped[/]  {part}: {why_not}")
            return
        tried, problems = 0, []
        for problem in play():
            tried += 1
            if problem:
                problems.append(problem)
        verdict = "[red]failed[/]" if problems else "[green]held[/]"
        self._console.print(f"{verdict:>20}  {part}: {tried:,} tried, {len(problems)} failed")
        for problem in problems[:PROBLEMS_SHOWN_MAX]:
            self._console.print(f"          {problem}", markup=False, soft_wrap=True)
        self.failures += len(problems)

    def _trust_store(self) -> Iterator[str]:
        return self._struck(trust_store.play())

    def _strict_disk(self) -> Iterator[str]:
        return self._struck(strict_disk.play(self._shelf))

    @staticmethod
    def _struck(played: Iterator[striker.Struck]) -> Iterator[str]:
        for struck in played:
            where = f"{struck.fault.name} at {struck.operation}: "
            yield where + "; ".join(struck.problems) if struck.problems else ""

    def _quick_calls(self) -> Iterator[str]:
        yield from self._calls(quick=True, faults=tuple(Fault))

    def _real_calls(self) -> Iterator[str]:
        yield from self._calls(quick=False, faults=(Fault.KILL,))

    def _calls(self, quick: bool, faults: tuple[Fault, ...]) -> Iterator[str]:
        tortured = Syscalls(self._shelf, quick=quick)
        try:
            for struck in tortured.strike_all(tortured.points(), faults, self._extent.jobs):
                where = f"{struck.fault.name} at {struck.point}: "
                yield where + "; ".join(struck.problems) if struck.problems else ""
        finally:
            tortured.close()

    def _power_cuts(self) -> Iterator[str]:
        with PowerCuts(self._shelf, self._extent.seed, self._extent.failures) as cuts:
            for cut in cuts.play(self._extent.cuts):
                yield f"cut {cut.number}: {'; '.join(cut.problems)}" if cut.problems else ""

    def _fsyncs(self) -> Iterator[str]:
        for name, fsync in FSYNCS.items():
            if fsync.found_by is By.POWER_CUTS and ext4_image.why_not():
                continue
            proof = prove(name, self._shelf, self._extent.seed)
            if proof.found:
                self._console.print(
                    f"             without {name} ({fsync.says}), by {fsync.found_by.value}, "
                    f"after {proof.tried}: {proof.found}",
                    markup=False,
                    soft_wrap=True,
                )
            yield "" if proof.found else f"nothing is lost without {name}: {fsync.says}"

    def _exactly_once(self) -> Iterator[str]:
        """A problem each, and nothing for each record that is stored once."""
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            TimeElapsedColumn(),
        )
        place = MEMORY_DIRECTORY if os.access(MEMORY_DIRECTORY, os.W_OK) else None
        with (
            tempfile.TemporaryDirectory(prefix="edgeloop-telemetry-", dir=place) as directory,
            Progress(*columns, console=self._console, transient=True) as bar,
        ):
            task = bar.add_task("stored", total=self._extent.records)
            outcome = ExactlyOnce(
                Path(directory),
                Plan(self._extent.records),
                self._extent.seed,
                lambda stored, total: bar.update(task, completed=stored, total=total),
            ).play()
        kills = ", ".join(f"{count} of the {what}" for what, count in outcome.kills.items())
        self._console.print(
            f"             {outcome.stored:,} stored in {outcome.wall_s:.0f} s; kills: {kills}; "
            f"{outcome.boots} boots; {outcome.repeated:,} came again and were ignored",
            markup=False,
            soft_wrap=True,
        )
        yield from outcome.problems
        yield from ("" for _ in range(outcome.stored))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=CUTS, help=f"power cuts (default: {CUTS})")
    parser.add_argument(
        "--records",
        type=int,
        default=exactly_once.RECORDS,
        help=f"of telemetry, under kill -9 (default: {exactly_once.RECORDS})",
    )
    parser.add_argument("--only", default="", help='parts with these words, such as "telemetry"')
    parser.add_argument("--jobs", type=int, default=2, help="agents under strace at once")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep", type=Path, help="where to keep disks that a cut left broken")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # an agent under torture complains at each step
    with tempfile.TemporaryDirectory(prefix="edgeloop-shelf-") as directory:
        shelf = Path(directory)
        fill(shelf)
        extent = Extent(options.cuts, options.records, options.jobs, options.seed, options.keep)
        torture = Torture(shelf, extent, Console())
        torture.run(options.only)
    return FAILED if torture.failures else 0


if __name__ == "__main__":
    sys.exit(main())
