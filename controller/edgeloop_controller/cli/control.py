"""`edgeloop diff`, `apply` and `export`: the fleet as files under git.

Invariant: `control` is imported by the commands only, since the terms of a rollout need numpy.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeloop.client import Client
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_protocol.errors import ConfigError

if TYPE_CHECKING:
    from edgeloop_controller.control.plan import Change

Directory = Annotated[Path, typer.Option("-f", "--files", metavar="DIR", help="of TOML files")]
Prune = Annotated[
    bool, typer.Option("--prune", help="take away labels, quarantines, policies that no file names")
]
Restart = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="start a rollout again that was halted or aborted; repeat"),
]


def diff(
    files: Directory, prune: Prune = False, restart: Restart = None, json: Json = False
) -> None:
    """Show what `apply` would do; ends with 9 when there is something."""
    with connected() as client:
        changes = _plan(client, files, prune, restart or [])
    _show(changes, json)
    raise typer.Exit(ExitCode.DIFFERENT if changes else ExitCode.OK)


def apply(
    files: Directory,
    prune: Prune = False,
    restart: Restart = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="as `diff`")] = False,
    json: Json = False,
) -> None:
    """Make the fleet what the files say; ends with 4 where a person has to decide."""
    if dry_run:
        diff(files, prune, restart, json)
    from edgeloop_controller.control.fleet_state import make_call

    with connected() as client:
        changes = _plan(client, files, prune, restart or [])
        _show(changes, json)
        for change in changes:
            if change.call is not None:
                make_call(client, change.call)
    if any(change.call is None for change in changes):
        raise typer.Exit(ExitCode.CONFLICT)


def export(directory: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Write today's state as devices.toml, rollouts.toml and policies.toml."""
    from edgeloop_controller.control.export import devices_toml, policies_toml, rollouts_toml
    from edgeloop_controller.control.fleet_state import read_state

    writers = (devices_toml, rollouts_toml, policies_toml)
    names = ("devices.toml", "rollouts.toml", "policies.toml")
    targets = [directory / name for name in names]
    for target in targets:
        if target.exists():
            output.fail(f"{target} is there", "export to an empty directory", ExitCode.CONFLICT)
    with connected() as client:
        state = read_state(client)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for target, write in zip(targets, writers, strict=True):
            target.write_text(write(state), encoding="utf-8")
            output.say(f"{target} written")
    except OSError as error:
        output.fail(f"cannot write: {error}", "choose another directory", ExitCode.USAGE)


def _plan(client: Client, directory: Path, prune: bool, restart: list[str]) -> "list[Change]":
    from edgeloop_controller.control.files import load_directory
    from edgeloop_controller.control.fleet_state import read_state
    from edgeloop_controller.control.plan import plan

    try:
        files = load_directory(directory)
    except ConfigError as error:
        output.fail(str(error), "", ExitCode.REFUSED_INPUT)
    for name in restart:
        if name not in files.rollouts:
            known = ", ".join(sorted(files.rollouts)) or "none"
            output.fail(f"no rollout {name!r} in {directory}", f"there: {known}", ExitCode.USAGE)
    only = None if prune else files.devices.keys()
    return plan(files, read_state(client, only), prune, restart)


def _show(changes: "list[Change]", json: bool) -> None:
    if json:
        output.print_json({"changes": [_document(change) for change in changes]})
        return
    for change in changes:
        mark = "!" if change.call is None else "+"
        output.paragraph(f"{mark} {change.sentence}", "  ")
        if change.hint:
            output.paragraph(f"  {change.hint}", "  ")
    if not changes:
        output.say("no difference")


def _document(change: "Change") -> dict[str, Any]:
    call = change.call
    return {
        "sentence": change.sentence,
        "hint": change.hint,
        "call": {"method": call.method, "path": call.path, "body": dict(call.body)}
        if call
        else None,
    }
