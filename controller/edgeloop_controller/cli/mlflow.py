"""`edgeloop publish` and `edgeloop mlflow`."""

from typing import Annotated, Any

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli import trust_options as signing
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.models import say_published
from edgeloop_controller.cli.trust_publishing import sign_published

app = typer.Typer(no_args_is_help=True, help="MLflow's registry (docs/mlflow.md).")


@app.callback()
def mlflow() -> None:
    """MLflow's registry, as [mlflow] of controller.toml names it."""


def publish(
    uri: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/NUMBER")],
    name: Annotated[
        str | None, typer.Option(help="the model's name here; default: as in MLflow")
    ] = None,
    sign: signing.Sign = signing.NO_KEYS,
    home: signing.Home = signing.HOME,
    passphrase_file: signing.PassphraseFile = None,
    yes: signing.Yes = False,
    json: Json = False,
) -> None:
    """Publish a version from MLflow's registry, and sign it. The same again changes nothing."""
    with connected() as client:
        document = client.post("/mlflow/publish", {"uri": uri, "name": name})
    if not json:
        say_published(document, f"log {_BASELINE} with the model")
    if sign:
        manner = signing.Manner(home, sign, passphrase_file, yes=yes, quiet=json)
        signed = sign_published(document["name"], document["version"], None, manner)
        document["signature"] = signed
    if json:
        output.print_json(document)


_BASELINE = "baseline.parquet among the extra_files"


@app.command()
def status(json: Json = False) -> None:
    """What is followed, what was last seen, and the last error."""
    with connected() as client:
        document = client.get("/mlflow")
    if json:
        output.print_json(document)
        return
    if not document["configured"]:
        output.say("no MLflow server is configured: [mlflow] tracking_uri in controller.toml")
        return
    webhooks = "none is taken: [mlflow] webhook_secret_file"
    if document["takes_webhooks"]:
        webhooks = f"the last came {output.ago(document['webhook_at'])}"
        if document["webhook_at"] is None:
            webhooks = "none came since the controller started"
    output.facts([("server", document["tracking_uri"]), ("webhooks", webhooks)])
    output.table(
        ("follow", "alias", ">at", "looked", "moved", "published", ">rollout", "error"),
        (_row(one) for one in document["items"]),
        "no alias is followed: [mlflow.follow.NAME] in controller.toml",
    )


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    error = one["error"]
    if error:
        error += f" (since {output.ago(one['failing_since'])}, try {one['failures']})"
    return (
        one["name"],
        one["uri"],
        one["version"],
        output.ago(one["looked_at"]),
        output.ago(one["moved_at"]),
        one["published"],
        one["rollout_id"] if one["rollout"] else "off",
        error,
    )
