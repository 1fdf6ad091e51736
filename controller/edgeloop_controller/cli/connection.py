"""How a command reaches the controller, and how its refusals end the command."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from edgeloop.client import DEFAULT_URL, Client
from edgeloop.errors import ApiError, EdgeloopError
from edgeloop_controller.cli.exit_codes import BY_STATUS, ExitCode
from edgeloop_controller.cli.output import fail

Json = Annotated[bool, typer.Option("--json", help="print the API's own document")]
VersionArgument = Annotated[str, typer.Argument(metavar="NAME@VERSION")]


@dataclass
class Target:
    """Set by the global option."""

    url: str = DEFAULT_URL
    actor: str | None = None


target = Target()


@contextmanager
def connected() -> Iterator[Client]:
    """A client; its refusals are printed with their hint and give the exit code."""
    if target.actor is not None and not target.actor.isascii():
        hint = "use ASCII: a name or an address of mail"
        fail(f"--actor {target.actor!r} cannot be sent in a header", hint, ExitCode.USAGE)
    with _client() as client:
        try:
            yield client
        except ApiError as error:
            code = ExitCode.UNREACHABLE
            if error.status is not None:
                code = BY_STATUS.get(error.status, ExitCode.FAILED)
            fail(error.message, error.hint, code)


def _client() -> Client:
    try:
        return Client(target.url, actor=target.actor)
    except EdgeloopError as error:
        fail(error.message, error.hint, ExitCode.USAGE)


def split_version(text: str) -> tuple[str, str]:
    """NAME@VERSION; ends the command when it is neither."""
    name, at, version = text.partition("@")
    if not (name and at and version) or "/" in text:
        fail(f"{text!r} is not NAME@VERSION", "for example watch@3", ExitCode.USAGE)
    return name, version
