"""What commands print: JSON documents or tables to stdout, errors to stderr.

Invariants: a table fits WIDTH columns however wide the terminal; nothing from a device or a file
is taken for markup, nor steers the terminal.
"""

import json
import textwrap
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_protocol.log_lines import printable

WIDTH: Final = 100
LINES: Final = frozenset("\n\t")

errors = Console(stderr=True, highlight=False, soft_wrap=True)

COLOURS: Final = {
    "running": "cyan",
    "pending": "cyan",
    "online": "green",
    "done": "green",
    "committed": "green",
    "succeeded": "green",
    "queued": "yellow",
    "held": "yellow",
    "paused": "yellow",
    "withdrawn": "yellow",
    "rejected": "yellow",
    "halted": "red",
    "failed": "red",
    "rolled_back": "red",
    "aborted": "red",
    "offline": "red",
}


def fail(message: str, hint: str, code: ExitCode) -> NoReturn:
    errors.print(f"[bold red]error:[/] {shown(message)}")
    if hint:
        errors.print(f"[dim]hint:[/] {shown(hint)}")
    raise typer.Exit(code)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def say(text: str = "") -> None:
    """A line; a state's name in it is not coloured. Wraps at WIDTH."""
    console().print(shown(text), soft_wrap=False)


def aside(text: str, indent: str) -> None:
    """Part of a dialogue, to stderr: what a person is asked about."""
    errors.print(escape(textwrap.fill(text, WIDTH, subsequent_indent=indent)))


def entry(at: str, kind: str, subject: str, detail: str, width: int = 22) -> None:
    """One line of a log, wrapped under itself where it is too long; `width` of the kinds."""
    paragraph(f"{at}  {kind:<{width}} {subject}  {detail}", " " * (len(at) + 2))


def paragraph(text: str, indent: str) -> None:
    """Wrapped at the width, with `indent` before all but the first line."""
    onto = console()
    filled = textwrap.fill(text, onto.width, subsequent_indent=indent)
    onto.print(shown(filled), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """`columns` that start with `>` are figures, to the right."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        grid.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    if grid.row_count:
        console().print(grid)
    else:
        say(empty)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, _cell(value))
    console().print(grid)


def when(seconds: float | None) -> str:
    """Local time, short."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def ago(seconds: float | None) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d` before now."""
    if seconds is None:
        return "-"
    elapsed_s = max(0.0, time.time() - seconds)
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if elapsed_s < limit_s:
            return f"{elapsed_s / unit_s:.0f} {unit} ago"
    return f"{elapsed_s / 86400:.0f} d ago"


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3.5 h`, `2.0 d`."""
    for limit_s, unit_s, unit, digits in ((120, 1, "s", 0), (7200, 60, "min", 0)):
        if seconds < limit_s:
            return f"{seconds / unit_s:.{digits}f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def version_name(ref: Any) -> str:
    return f"{ref['name']}@{ref['version']}" if ref else "-"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    colour = COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else shown(text)


def shown(text: str) -> str:
    """Neither markup nor what steers a terminal."""
    return escape(printable(text, LINES))


def console() -> Console:
    """Onto stdout, at most WIDTH wide."""
    return Console(
        width=min(WIDTH, Console().width) if Console().is_terminal else WIDTH, highlight=False
    )
