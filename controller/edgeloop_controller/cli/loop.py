"""`edgeloop drift` and `edgeloop retrain`."""

from typing import Annotated, Any

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected

drift_app = typer.Typer(no_args_is_help=True, help="What moved since the models were trained.")
retrain_app = typer.Typer(no_args_is_help=True, help="Training runs and their policies.")

RunId = Annotated[int, typer.Argument(metavar="RUN")]


@drift_app.command("show")
def show_drift(json: Json = False) -> None:
    """Scores of the last look, and alarms."""
    with connected() as client:
        document = client.get("/drift")
    if json:
        output.print_json(document)
        return
    output.table(
        ("version", "scope", "key", ">score", ">threshold", ">examples", "finding"),
        (
            (
                output.version_name(score["version"]),
                score["scope"],
                score["key"],
                score["score"],
                score["threshold"],
                score["examples"],
                _finding(score),
            )
            for score in document["scores"]
        ),
        "no scores yet: too few examples, no version with a baseline, or drift is disabled",
    )
    output.table(
        ("alarm", "version", "of", "cause", ">score", "raised", "cleared"),
        (
            (
                alarm["id"],
                output.version_name(alarm["version"]),
                f"{alarm['scope']} {alarm['key']}",
                _finding(alarm),
                alarm["score"],
                output.ago(alarm["raised_at"]),
                output.ago(alarm["cleared_at"]) if alarm["cleared_at"] else "open",
            )
            for alarm in document["alarms"]
        ),
        "no alarm was ever raised",
    )


@retrain_app.command("run")
def run(policy: str, json: Json = False) -> None:
    """Ask for a run of a policy now."""
    with connected() as client:
        document = client.post(f"/retraining/policies/{quoted(policy)}/runs")
    if json:
        output.print_json(document)
    else:
        output.say(
            f"run {document['id']} is {document['status']}: edgeloop retrain show "
            + str(document["id"])
        )


@retrain_app.command("list")
def list_runs(json: Json = False) -> None:
    """Newest first."""
    with connected() as client:
        document = client.get("/retraining/runs")
    if json:
        output.print_json(document)
        return
    output.table(
        ("run", "policy", "status", "trigger", "parent", "candidate", "requested", "error"),
        (
            (
                r["id"],
                r["policy"],
                r["status"],
                r["trigger"],
                output.version_name(r["parent"]),
                output.version_name(r["candidate"]),
                output.ago(r["requested_at"]),
                _short(r["error"]),
            )
            for r in document["items"]
        ),
        "no run yet",
    )


@retrain_app.command("show")
def show_run(
    run: RunId,
    log: Annotated[bool, typer.Option("--log", help="print what the script printed")] = False,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="print the in-toto statement of what it published")
    ] = False,
    json: Json = False,
) -> None:
    """One run: data, evaluation, and how it ended."""
    with connected() as client:
        if log:
            typer.echo(client.get_text(f"/retraining/runs/{run}/log"), nl=False)
            return
        path = f"/retraining/runs/{run}"
        document = client.get(f"{path}/provenance" if provenance else path)
    if json or provenance:
        output.print_json(document)
    else:
        _show_run(document)


@retrain_app.command("policies")
def policies(json: Json = False) -> None:
    """Every policy, what it waits for, and the files that cannot be used."""
    with connected() as client:
        document = client.get("/retraining/policies")
    if json:
        output.print_json(document)
        return
    output.table(
        ("policy", "from", "model", "on", "champion", "now"),
        (
            (
                p["name"],
                p["origin"],
                p["model"],
                ", ".join(p["on"]),
                output.version_name(p["champion"]),
                p["says"],
            )
            for p in document["items"]
        ),
        "no policy is in use: `edgeloop apply` gives one, or put <name>.toml files into "
        "[retraining] policies_dir",
    )
    for bad in document["errors"]:
        output.say(f"cannot be used: {bad['error']}")


def _show_run(document: dict[str, Any]) -> None:
    result = document["result"]
    pairs = [
        ("run", document["id"]),
        ("policy", document["policy"]),
        ("status", document["status"]),
        ("trigger", f"{document['trigger']}: {result.get('why', '')}"),
        *([("rollout waits", result["rollout_waits"])] if "rollout_waits" in result else []),
        ("parent", output.version_name(document["parent"])),
        ("candidate", output.version_name(document["candidate"])),
        ("rollout", document["rollout_id"]),
        ("requested", output.when(document["requested_at"])),
        ("ended", output.when(document["ended_at"])),
        ("directory", document["directory"]),
        ("error", document["error"]),
    ]
    data, evaluation = result.get("data"), result.get("evaluation")
    if data:
        pairs.append(("data", f"{data['samples']} samples of {len(data['devices'])} devices"))
    if evaluation:
        against = evaluation["against_accuracy"]
        beside = f", parent {against:.3f}" if against is not None else ""
        text = f"accuracy {evaluation['accuracy']:.3f}{beside} on {evaluation['examples']} examples"
        pairs.append(("evaluation", text))
    output.facts(pairs)


def _finding(document: dict[str, Any]) -> str:
    if not document["cause"]:
        return ""
    sensor = f" ({document['sensor']})" if document["sensor"] else ""
    return f"{document['cause']}{sensor}"


def _short(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= 60 else first[:59] + "…"
