"""`edgeloop broker config`: on the controller's machine, with its authority's key at hand.

Invariants: it speaks to no controller, and may be run while one runs; what it writes of secrets is
its owner's alone.
"""

import getpass
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from edgeloop_controller.config import ControllerConfig

Answer = TypeVar("Answer")

app = typer.Typer(no_args_is_help=True, help="Set up a broker of your own.")


class Kind(StrEnum):
    MOSQUITTO = "mosquitto"
    NATS = "nats"


@app.callback()
def broker() -> None:
    """Set up a broker of your own."""


@app.command()
def config(
    kind: Kind,
    directory: Annotated[Path, typer.Option("--dir", help="for the broker's files")],
    controller: Annotated[
        Path | None, typer.Option("--config", help="controller.toml; without it, the defaults")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="host name or address that devices reach the broker by; give all"),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8883,
    address: Annotated[str | None, typer.Option(help="to listen on; without it, all")] = None,
    client_port: Annotated[
        int, typer.Option(min=1, max=65535, help="of NATS' own protocol, on loopback")
    ] = 4222,
    run_as: Annotated[
        str | None, typer.Option(help="whom mosquitto becomes; without it, who runs this")
    ] = None,
) -> None:
    """Write what a broker needs to know devices by their certificates, and to keep them apart."""
    from edgeloop_controller.config import ControllerConfig
    from edgeloop_controller.errors import ControllerError
    from edgeloop_protocol.config import load_config
    from edgeloop_protocol.errors import ConfigError

    try:
        settings = load_config(ControllerConfig, controller)
        names = name or ["localhost", "127.0.0.1"]
        if kind is Kind.MOSQUITTO:
            _mosquitto(settings, directory, names, port, address, run_as)
        else:
            _nats(settings, directory, names, port, address, client_port)
    except ConfigError as error:
        output.fail(str(error), "", ExitCode.USAGE)
    except ControllerError as error:
        output.fail(str(error), error.hint, ExitCode.CANNOT_START)
    except OSError as error:
        hint = "run this as the user that the controller runs as"
        output.fail(f"cannot write: {error}", hint, ExitCode.FAILED)
    _say_what_to_add(kind, directory.absolute(), names[0], port)


def _mosquitto(
    settings: "ControllerConfig",
    directory: Path,
    names: list[str],
    port: int,
    address: str | None,
    run_as: str | None,
) -> None:
    from edgeloop_controller.broker_files import writing
    from edgeloop_controller.ca.authority import Authority
    from edgeloop_controller.store import identities

    now = time.time()
    authority = Authority(settings.ca_dir, settings.ca, now)
    revoked = _asked(settings, lambda session: identities.revoked_serials(session, now))
    user = run_as or (getpass.getuser() if os.geteuid() == 0 else None)
    writing.write_mosquitto(directory, authority, revoked, names, port, address, user, now)


def _nats(
    settings: "ControllerConfig",
    directory: Path,
    names: list[str],
    port: int,
    address: str | None,
    client_port: int,
) -> None:
    from edgeloop_controller.broker_files import writing
    from edgeloop_controller.ca.authority import Authority
    from edgeloop_controller.store import identities

    now = time.time()
    authority = Authority(settings.ca_dir, settings.ca, now)
    admitted = _asked(settings, lambda session: identities.admitted(session, now))
    writing.write_nats(directory, authority, admitted, names, port, address, client_port, now)


def _asked(settings: "ControllerConfig", question: "Callable[[Session], Answer]") -> "Answer":
    """Of the database, where there is one already."""
    from edgeloop_controller.store.engine import Database

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    try:
        with database.reading() as session:
            return question(session)
    finally:
        database.close()


def _say_what_to_add(kind: Kind, directory: Path, host: str, port: int) -> None:
    pid = directory / f"{kind.value}.pid"
    program = {Kind.MOSQUITTO: "mosquitto -c", Kind.NATS: "nats-server -c"}[kind]
    typer.echo(f"# start the broker: {program} {directory / f'{kind.value}.conf'}")
    typer.echo("# and add to controller.toml, in place of [broker]:")
    typer.echo(f'[broker]\nhost = "{host}"\nport = {port}\n')
    typer.echo(f'[broker.access]\nkind = "{kind.value}"\ndirectory = "{directory}"')
    typer.echo(f'reload_command = ["pkill", "-HUP", "-F", "{pid}"]')
