"""`edgeloop`: the controller, and the client of its HTTP API.

Invariants: a command imports nothing of the server but `serve`, lazily; results go to stdout,
errors with their hint to stderr; no traceback for an error that has a name.
"""

from pathlib import Path
from typing import Annotated

import typer

from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.output import fail
from edgeloop_controller.errors import ControllerError
from edgeloop_protocol.errors import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def edgeloop() -> None:
    """Edgeloop: put a model on a fleet, watch it, retrain it, replace it."""


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Option(help="controller.toml; without it, the defaults")
    ] = None,
) -> None:
    """Run the controller until SIGTERM or Ctrl-C."""
    from edgeloop_controller.config import ControllerConfig
    from edgeloop_controller.serve import serve as run
    from edgeloop_protocol.config import load_config

    try:
        run(load_config(ControllerConfig, config))
    except ConfigError as error:
        fail(str(error), "", ExitCode.USAGE)
    except ControllerError as error:
        fail(str(error), error.hint, ExitCode.CANNOT_START)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.OK) from None


def main() -> None:
    app()
