"""`edgeloop-sim explore`, `replay` and `mutants`: virtual worlds on the command line.

Exit codes: 0 no law was broken (every mutant was found); 1 one was (one survived); 2 what was asked
for cannot be done; 130 interrupted.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgeloop_simulators.errors import CaseError, SimulatorError
from edgeloop_simulators.virtual.seeds.case import Case, case_of
from edgeloop_simulators.virtual.seeds.explore import Findings, Told, document, explore
from edgeloop_simulators.virtual.seeds.mutants import MUTANTS, planted
from edgeloop_simulators.virtual.seeds.mutation import Hunted, hunt_all
from edgeloop_simulators.virtual.seeds.replay import Shown, replay, seconds, stop_at
from edgeloop_simulators.virtual.seeds.shrink import Shrunk, story
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

HOUR_S: Final = 3600.0
FAILURES_SHOWN_MAX: Final = 20
_FAULTS: Final = TypeAdapter(tuple[Fault, ...])

Jobs = Annotated[int, typer.Option(min=1, help="processes")]


def register(app: typer.Typer) -> None:
    app.command(name="explore")(explore_command)
    app.command(name="replay")(replay_command)
    app.command(name="mutants")(mutants_command)


def explore_command(
    seeds: Annotated[int, typer.Option(min=1, help="how many")] = 1000,
    jobs: Jobs = 2,
    first: Annotated[int, typer.Option("--from", min=0, help="the first seed")] = 0,
    save: Annotated[
        Path | None, typer.Option(help="a directory for the faults of shrunk failures, as JSON")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Play many worlds, and shrink those that break a law."""
    with _progress(seeds) as told:
        findings = explore(range(first, first + seeds), jobs, told)
    if save is not None:
        _save(findings.shrunk, save)
    if as_json:
        typer.echo(json.dumps(document(findings), indent=2))
    else:
        for line in _summary(findings):
            typer.echo(line)
    if findings.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(FAILED if findings.failures else OK)


def replay_command(
    seed: int,
    faults: Annotated[
        str, typer.Option(help="numbers of those left (3,7 or none), or a JSON file of faults")
    ] = "",
    steps: Annotated[str, typer.Option(help="numbers of the script's steps left")] = "",
    devices: Annotated[str, typer.Option(help="numbers of the devices left")] = "",
    part: Annotated[list[str] | None, typer.Option(help="show only this part; repeatable")] = None,
    what: Annotated[
        list[str] | None, typer.Option(help="show only slot.state, runner, …; repeatable")
    ] = None,
    from_s: Annotated[float, typer.Option("--from", help="show from this second on")] = 0.0,
    until: Annotated[
        str, typer.Option(help="stop at an event (part:what), an invariant, or a second")
    ] = "",
    messages: Annotated[bool, typer.Option(help="show delivered messages too")] = False,
    shell: Annotated[bool, typer.Option(help="a Python shell where it stops")] = False,
    mutant: Annotated[str, typer.Option(help="with a planted bug")] = "",
) -> None:
    """Play one world and tell what every part saw and did."""
    try:
        case = _case(seed, faults, steps, devices)
        until_s = seconds(until)
        stop = stop_at(until) if until and (shell or until_s is None) else None
        ends_s = float("inf") if until_s is None else until_s
        shown = Shown(tuple(part or ()), tuple(what or ()), from_s, ends_s, messages)
        with _quiet(), planted(mutant):
            played = replay(case, shown, typer.echo, stop, shell)
    except SimulatorError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from error
    raise typer.Exit(FAILED if played.law else OK)


def mutants_command(
    seeds: Annotated[int, typer.Option(min=1, help="to try for each mutant")] = 1000,
    jobs: Jobs = 2,
    only: Annotated[list[str] | None, typer.Option(help="this mutant alone; repeatable")] = None,
) -> None:
    """Plant bugs in the real agent and controller, and look how soon a law is seen broken."""
    unknown = sorted(set(only or ()) - set(MUTANTS))
    if unknown:
        typer.echo(f"no mutant {unknown[0]!r}: there are {', '.join(MUTANTS)}", err=True)
        raise typer.Exit(USAGE)
    chosen = {name: mutant for name, mutant in MUTANTS.items() if not only or name in only}
    survivors = 0
    try:
        for hunted in hunt_all(chosen, seeds, jobs):
            survivors += not hunted.law
            typer.echo(_hunted(hunted))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{len(chosen) - survivors} of {len(chosen)} mutants were found")
    raise typer.Exit(FAILED if survivors else OK)


def _hunted(hunted: Hunted) -> str:
    found = f"{hunted.law} with seed {hunted.seed}" if hunted.law else "SURVIVED"
    return (
        f"{hunted.mutant:<34} {found:<26} after {hunted.tried:4} seeds, {hunted.wall_s:6.1f} s  "
        f"{MUTANTS[hunted.mutant].says}"
    )


# ---- what is asked for --------------------------------------------------------------------------


def _case(seed: int, faults: str, steps: str, devices: str) -> Case:
    case = case_of(seed)
    if faults:
        case = replace(case, faults=_faults(faults, case.faults))
    if steps:
        case = replace(case, steps=_numbers(steps))
    if devices:
        case = replace(case, devices=_numbers(devices))
    return case


def _faults(text: str, drawn: Sequence[Fault]) -> tuple[Fault, ...]:
    if text.endswith(".json"):
        try:
            return _FAULTS.validate_json(Path(text).read_bytes())
        except (OSError, ValidationError) as error:
            raise CaseError(f"{text} holds no list of faults: {error}") from error
    numbers = _numbers(text)
    if any(number >= len(drawn) for number in numbers):
        raise CaseError(f"--faults {text}: this seed has {len(drawn)} faults, the first is 0")
    return tuple(drawn[number] for number in numbers)


def _numbers(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError as error:
        raise CaseError(f"{text!r} is no list of numbers such as 0,3 (or none)") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong in these worlds is what they are for: the timeline shows it, no log."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# ---- what is shown ------------------------------------------------------------------------------


@contextmanager
def _progress(seeds: int) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("seeds", total=seeds)

        def told(findings: Findings) -> None:
            failed = f", {len(findings.failures)} failed" if findings.failures else ""
            bar.update(task, completed=findings.seeds, description=f"seeds{failed}")

        yield told


def _summary(findings: Findings) -> Iterator[str]:
    for shrunk in findings.shrunk:
        yield from story(shrunk)
    left = findings.failures[:FAILURES_SHOWN_MAX]
    if left:
        yield "Seeds that failed (edgeloop-sim replay SEED):"
        yield from (f"  {played.case.seed}: {played.violations[0]}" for played in left)
        if len(findings.failures) > len(left):
            yield f"  and {len(findings.failures) - len(left)} more"
        yield ""
    rate = findings.seeds / findings.wall_s if findings.wall_s else 0.0
    yield (
        f"{findings.seeds} seeds, {findings.virtual_s / HOUR_S:.1f} hours of virtual time, "
        f"{findings.events} events in {findings.wall_s:.1f} s ({rate:.2f} seeds/s)"
    )
    kinds = ", ".join(f"{kind.value} {findings.faults[kind]}" for kind in FaultKind)
    yield f"faults: {kinds}"
    laws = ", ".join(f"{law} {count}" for law, count in sorted(findings.laws.items()))
    yield f"violations: {laws or 'none'}"
    yield f"trace hash of all: {findings.trace_hash()}"
    if findings.interrupted:
        yield "interrupted: what is said is of the seeds played until then"


def _save(shrunk: Sequence[Shrunk], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for one in shrunk:
        case = one.played.case
        document = _FAULTS.dump_json(case.faults, indent=2)
        (directory / f"seed-{case.seed}.json").write_bytes(document)
