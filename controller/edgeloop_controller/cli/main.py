"""`edgeloop`: the controller, and the client of its HTTP API.

Invariants: a command imports nothing of the server but `serve`, lazily, and the rollouts' terms
(`diff`, `apply`, `export`), lazily too; results go to stdout, errors with their hint to stderr; no
traceback for an error that has a name; exit codes as in `cli.exit_codes`.
"""

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.client import DEFAULT_URL
from edgeloop_controller.cli import (
    audit,
    broker,
    challengers,
    connection,
    control,
    devices,
    events,
    loop,
    mlflow,
    models,
    rollouts,
    tokens,
    trust,
    webhooks,
    why,
)
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.output import fail
from edgeloop_controller.errors import ControllerError
from edgeloop_protocol.errors import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(models.app, name="model")
app.add_typer(devices.app, name="device")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(challengers.app, name="challenger")
app.add_typer(loop.drift_app, name="drift")
app.add_typer(loop.retrain_app, name="retrain")
app.add_typer(broker.app, name="broker")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(mlflow.app, name="mlflow")
app.add_typer(tokens.app, name="token")
app.add_typer(audit.app, name="audit")
app.command("whoami")(tokens.who_am_i)
app.add_typer(trust.app, name="trust")
app.command("publish")(mlflow.publish)
app.command("why")(why.why)
app.command("lineage")(models.lineage)
app.command("events")(events.events)
app.command("diff")(control.diff)
app.command("apply")(control.apply)
app.command("export")(control.export)


@app.callback()
def edgeloop(
    url: Annotated[
        str, typer.Option(envvar="EDGELOOP_URL", help="the controller's address")
    ] = DEFAULT_URL,
    actor: Annotated[
        str | None,
        typer.Option(envvar="EDGELOOP_ACTOR", help="who you are, for the audit log: not checked"),
    ] = None,
) -> None:
    """Edgeloop: put a model on a fleet, watch it, retrain it, replace it."""
    connection.target.url, connection.target.actor = url, actor


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
        run(load_config(ControllerConfig, config), config)
    except ConfigError as error:
        fail(str(error), "", ExitCode.USAGE)
    except ControllerError as error:
        fail(str(error), error.hint, ExitCode.CANNOT_START)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.OK) from None


def main() -> None:
    app()


if __name__ == "__main__":
    main()
