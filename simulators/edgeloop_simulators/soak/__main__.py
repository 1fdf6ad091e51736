"""`make soak`: prints a table of weights, and for each of them whether it is flat."""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from edgeloop_simulators.soak.run import LOGS, Terms, soaking
from edgeloop_simulators.soak.verdict import Judgement, Weight, judge

SWAPS: Final = 1_000
INFERENCES: Final = 1_000_000
ROWS_SHOWN: Final = 20
WIDTH_MIN: Final = 130
HEADINGS: Final = (
    *("swap", "answered", "supervisor MB", "steady MB", "new MB", "descriptors", "threads"),
    *("files", "outbox kB", "wal kB", "models kB", "logs kB"),
)
GREW: Final = 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=SWAPS)
    parser.add_argument("--inferences", type=int, default=INFERENCES)
    parser.add_argument("--csv", type=Path, help="write every weight to this file")
    options = parser.parse_args()
    console = Console(width=max(WIDTH_MIN, Console().width))
    terms = Terms(options.swaps, options.inferences)
    began = time.monotonic()
    weights: list[Weight] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="edgeloop-soak-") as made,
            soaking(Path(made), terms) as soak,
        ):
            for weight in soak.weights(terms):
                weights.append(weight)
                if len(weights) % max(1, terms.swaps // ROWS_SHOWN) == 0:
                    console.print(_in_short(weight), highlight=False)
            lost, restarts = soak.lost, soak.restarts
    finally:
        if options.csv is not None and weights:
            _write(options.csv, weights)
    judged = judge(weights, LOGS)
    _show(weights, judged, console)
    is_flat = all(one.is_flat for one in judged) and not lost and not restarts
    console.print(
        f"{len(weights):,} swaps, {weights[-1].answered:,} inferences in "
        f"{time.monotonic() - began:,.0f} s; {lost} records lost, {restarts} runners restarted: "
        + ("[green]flat[/]" if is_flat else "[red]not flat[/]")
    )
    return 0 if is_flat else GREW


def _in_short(weight: Weight) -> str:
    return (
        f"swap {weight.swap:>6,}  {weight.answered:>9,} answered  supervisor "
        f"{weight.supervisor.memory.rss / 1e3:.2f} MB  steady runner "
        f"{weight.steady.memory.rss / 1e3:.2f} MB  descriptors {weight.supervisor.descriptors}"
    )


def _show(weights: Sequence[Weight], judged: Sequence[Judgement], console: Console) -> None:
    step = max(1, len(weights) // ROWS_SHOWN)
    table = _table("Weights after a swap", *HEADINGS)
    for weight in weights[step - 1 :: step]:
        of, stored = weight.supervisor, weight.stored
        memories = (of.memory, weight.steady.memory, weight.swapped.memory)
        sizes = (stored.outbox, stored.wal, stored.models, stored.logs)
        table.add_row(
            f"{weight.swap:,}",
            f"{weight.answered:,}",
            *(f"{memory.rss / 1e3:.2f}" for memory in memories),
            f"{of.descriptors}",
            f"{of.threads}",
            f"{stored.files}",
            *(f"{size / 1e3:,.0f}" for size in sizes),
        )
    console.print(table)
    verdicts = _table("The second half of them", "", "first", "last", "rule", "verdict")
    for one in judged:
        verdicts.add_row(
            one.what,
            f"{one.first:,.0f} {one.unit}",
            f"{one.last:,.0f} {one.unit}",
            one.found,
            "[green]flat[/]" if one.is_flat else "[red]grows[/]",
        )
    console.print(verdicts)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("", "rule") else "right")
    return table


def _write(path: Path, weights: Sequence[Weight]) -> None:
    rows = [_flat(asdict(weight)) for weight in weights]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


if __name__ == "__main__":
    sys.exit(main())
