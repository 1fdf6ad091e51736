"""What `edgeloop-sim` does with virtual worlds: run one, compare two.

Exit codes: 0 as expected (or: nothing changed); 1 not as expected (or: something changed); 2 the
file cannot be used.
"""

import json
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from edgeloop_simulators.output import output_directory
from edgeloop_simulators.virtual.report.compare import (
    FILE,
    Row,
    compare,
    comparison_document,
    read_report,
)
from edgeloop_simulators.virtual.report.document import document
from edgeloop_simulators.virtual.report.page import render, verdict
from edgeloop_simulators.virtual.run.play import Run, play
from edgeloop_simulators.virtual.scenario.load import load_virtual

PAGE: Final = "report.html"


def run_virtual(path: Path, seed: int | None, out: Path | None, console: Console) -> bool:
    """Whether all came as expected. Raises SimulatorError."""
    loaded = load_virtual(path)
    if out is None:
        return _told(play(loaded, seed), console)
    with output_directory(out) as directory:
        run = play(loaded, seed)
        (directory / "scenario.toml").write_text(loaded.text, encoding="utf-8")
        write_report(run, out)
    passed = _told(run, console)
    console.print(f"report: {out / PAGE}", style="bold", markup=False, highlight=False)
    return passed


def write_report(run: Run, directory: Path) -> None:
    """report.json and report.html."""
    report = document(run)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (directory / FILE).write_text(text, encoding="utf-8")
    (directory / PAGE).write_text(render(report), encoding="utf-8")


def compare_reports(a: Path, b: Path, tolerance: float, as_json: bool, console: Console) -> bool:
    """Whether nothing changed. Raises RecordError."""
    rows = compare(read_report(a), read_report(b), tolerance)
    if as_json:
        text = json.dumps(comparison_document(rows, tolerance), indent=2, ensure_ascii=False)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        _show(rows, str(a), str(b), console)
    return not any(row.changed for row in rows)


def _told(run: Run, console: Console) -> bool:
    scenario, outcome = run.loaded.scenario, run.recording.outcome
    console.print(f"{scenario.title}, seed {outcome.seed}", style="bold", highlight=False)
    for check in run.checks:
        mark, style = ("✓", "green") if check.passed else ("✗", "red")
        line = Text(f"  {mark} ", style=style)
        line.append(str(check), style="" if check.passed else "red")
        console.print(line, soft_wrap=True, highlight=False)
    console.print(verdict(document(run)), soft_wrap=True, highlight=False, markup=False)
    return run.passed


def _show(rows: tuple[Row, ...], a: str, b: str, console: Console) -> None:
    widths = [max(len(cell) for cell in column) for column in _columns(rows, a, b)]
    for row in [None, *rows]:
        cells = ["", a, b] if row is None else [row.name, row.a, row.b]
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        line = Text("  ".join([" ", *padded]) if row is None or not row.changed else "")
        if row is not None and row.changed:
            line = Text("  ".join(["*", *padded]), style="bold yellow")
            line.append("" if row.change is None else f"  {row.change:+.1%}")
        console.print(line, soft_wrap=True, highlight=False)
    changed = sum(row.changed for row in rows)
    console.print(f"{changed} of {len(rows)} changed" if changed else "nothing changed")


def _columns(rows: tuple[Row, ...], a: str, b: str) -> list[list[str]]:
    return [
        ["", *(row.name for row in rows)],
        [a, *(row.a for row in rows)],
        [b, *(row.b for row in rows)],
    ]
