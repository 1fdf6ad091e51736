"""What commands print: JSON documents or tables to stdout, errors to stderr."""

import json
from typing import Any, NoReturn

import typer
from rich.console import Console

from edgeloop_controller.cli.exit_codes import ExitCode

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, hint: str, code: ExitCode) -> NoReturn:
    errors.print(f"[bold red]error:[/] {_plain(message)}")
    if hint:
        errors.print(f"[dim]hint:[/] {_plain(hint)}")
    raise typer.Exit(code)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
