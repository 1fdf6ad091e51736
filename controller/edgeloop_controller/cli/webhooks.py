"""`edgeloop webhook`."""

from typing import Any

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected

app = typer.Typer(no_args_is_help=True, help="Who is told of events (docs/webhooks.md).")


@app.callback()
def webhook() -> None:
    """Who is told of events; configured in controller.toml."""


@app.command("list")
def list_webhooks(json: Json = False) -> None:
    """Every webhook: how far it is, and what keeps it."""
    with connected() as client:
        document = client.get("/webhooks")
    if json:
        output.print_json(document)
        return
    output.table(
        ("webhook", "to", "kinds", "state", ">behind", ">delivered", ">given up", "last", "error"),
        (_row(one) for one in document["items"]),
        "no webhook is configured: [webhooks.hooks.NAME] in controller.toml",
    )


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    error = one["error"]
    if one["failing_since"] is not None:
        error = f"{error} (since {output.ago(one['failing_since'])}, try {one['attempts']})"
    return (
        one["name"],
        one["receiver"],
        ", ".join(one["kinds"]),
        one["state"].replace("_", " "),
        one["behind"],
        one["delivered"],
        one["given_up"],
        output.ago(one["delivered_at"]),
        error,
    )
