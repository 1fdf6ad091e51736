"""`edgeloop-sim`: run scenarios, compare runs, compute figures again, explore virtual worlds.

A scenario with `world = "virtual"` runs in virtual time; any other by real processes.

Exit codes: 0 the story came to its end, and as expected; 1 it did not (a deadline, a process that
died, an expectation); 2 the command line, the scenario or the data cannot be used; 130 interrupted.
"""

import json
import logging
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeloop_simulators.errors import SimulatorError, StoryError
from edgeloop_simulators.finish import drain, keep_outboxes
from edgeloop_simulators.live.command import fleet
from edgeloop_simulators.progress import Progress
from edgeloop_simulators.record import Record, read_record
from edgeloop_simulators.report import render
from edgeloop_simulators.scenario import Loaded, load_scenario, shipped
from edgeloop_simulators.story import play
from edgeloop_simulators.summary import summarize
from edgeloop_simulators.testbed import Interrupted, testbed
from edgeloop_simulators.timeline import events_of
from edgeloop_simulators.virtual import seeds_command
from edgeloop_simulators.virtual.scenario.load import find_virtual, load_virtual, shipped_virtual
from edgeloop_simulators.virtual.scenario_command import compare_reports, run_virtual
from edgeloop_simulators.world import World

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

PLAIN_WIDTH_CHARS: Final = 1000

app = typer.Typer(
    help="Edgeloop's testbed: real agents, replayed sensors, a scripted world.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
seeds_command.register(app)
app.command()(fleet)
console = Console()
errors = Console(stderr=True, soft_wrap=True)

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "--report",
        help="where the run and its report go; a former run there is replaced; by default "
        "demo-out, and nowhere for a virtual world",
    ),
]
DEMO_OUT: Final = Path("demo-out")


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="a TOML file, or the name of a shipped one")],
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="another world of the same kind")] = None,
    verbose: Annotated[bool, typer.Option(help="log to stderr")] = False,
) -> None:
    """Play a scenario's story from beginning to end, then say what happened."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR)
    try:
        virtual = find_virtual(scenario)
        if virtual is not None:
            raise typer.Exit(OK if run_virtual(virtual, seed, out, console) else FAILED)
        loaded = load_scenario(scenario)
        own = loaded.scenario.seed if seed is None else seed
        code = _play(loaded, (out or DEMO_OUT).absolute(), own)
    except Interrupted as interrupted:
        errors.print(f"interrupted by {interrupted}: everything is stopped")
        code = INTERRUPTED
    except SimulatorError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        code = USAGE
    raise typer.Exit(code)


@app.command(name="summarize")
def summarize_command(out: Annotated[Path, typer.Argument(help="the --out of a run")]) -> None:
    """Compute a run's figures again, and its report, from what it recorded."""
    try:
        record = read_record(out)
    except SimulatorError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(USAGE) from error
    _write(record, out)
    _show(record, out)


@app.command(name="list")
def list_command() -> None:
    """The scenarios that come with the package."""
    for name in shipped():
        title = load_scenario(name).scenario.title
        console.print(f"{name}: {title} (real processes)", highlight=False)
    for name, path in shipped_virtual().items():
        console.print(f"{name}: {load_virtual(path).scenario.title}", highlight=False)


@app.command(name="compare")
def compare_command(
    a: Annotated[Path, typer.Argument(help="the --report of a run of a virtual world")],
    b: Annotated[Path, typer.Argument(help="that of another")],
    tolerance: Annotated[float, typer.Option(help="relative change that counts as none")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show two runs side by side; 1 when a figure changed by more than the tolerance."""
    try:
        same = compare_reports(a, b, tolerance, as_json, console)
    except SimulatorError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(USAGE) from error
    raise typer.Exit(OK if same else FAILED)


def _play(loaded: Loaded, out: Path, seed: int) -> int:
    """Returns the exit code; whatever happened after the start, there is a summary of it."""
    stopped = ""
    with testbed(loaded, out, seed) as bed:
        devices = len(bed.device_ids)
        with Progress(loaded.scenario, bed.truth, console, devices) as progress:
            try:
                play(World(bed, progress))
            except StoryError as error:
                stopped = f"the story stopped: {error}"
            drain(bed)
        bed.truth.mark("run.ended", "the run ends", at=time.time())
        bed.fleet.stop()
        keep_outboxes(bed)
    record = read_record(out)
    _write(record, out)
    _show(record, out)
    if stopped:
        errors.print(stopped, style="red", markup=False, highlight=False)
    return FAILED if stopped else OK


def _write(record: Record, out: Path) -> None:
    summary = summarize(record)
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")
    (out / "report.html").write_text(render(record, summary), encoding="utf-8")


def _show(record: Record, out: Path) -> None:
    happened = Table(title="What happened", title_justify="left", box=None, pad_edge=False)
    happened.add_column("s", justify="right", style="dim")
    happened.add_column("")
    for event in events_of(record):
        text = Text(event.text)
        if event.detail:
            text.append(f"\n{event.detail}", style="dim")
        happened.add_row(f"{event.at_s:.0f}", text)
    figures = Table(title="Figures", title_justify="left", box=None, pad_edge=False)
    figures.add_column("", style="dim")
    figures.add_column("")
    for name, value in summarize(record).items():
        if not isinstance(value, dict):
            figures.add_row(name, _figure(value))
    _print_table(happened)
    _print_table(figures)
    where = f"\nfigures: {out / 'summary.json'}\nreport:  {out / 'report.html'}"
    console.print(where, style="bold", markup=False, highlight=False, soft_wrap=True)


def _print_table(table: Table) -> None:
    """Where there is no terminal (a file, a pipe) no line is wrapped: tools read lines."""
    console.print()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=PLAIN_WIDTH_CHARS, color_system=None)
    with wide.capture() as captured:
        wide.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _figure(value: Any) -> str:
    if value is None:
        return "did not happen"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
