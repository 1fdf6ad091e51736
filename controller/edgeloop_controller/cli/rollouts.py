"""`edgeloop rollout`."""

from typing import Annotated, Any

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, VersionArgument, connected, split_version

app = typer.Typer(no_args_is_help=True, help="Bring a version to devices, wave by wave.")

RolloutId = Annotated[int, typer.Argument(metavar="ROLLOUT")]


@app.command()
def start(
    version: VersionArgument,
    to: Annotated[str, typer.Option(metavar="SELECTOR", help="`all`, `site=lab, !spare` …")],
    waves: Annotated[str, typer.Option(help="devices or shares, cumulative")] = "1,5%,25%,100%",
    slot: str = "main",
    soak: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="how long a wave is watched")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="how long a wave waits for devices")
    ] = None,
    max_failed: Annotated[
        float | None, typer.Option(help="largest share of devices that may fail")
    ] = None,
    max_disagreement: Annotated[
        float | None, typer.Option(help="largest share of answers unlike the old version's")
    ] = None,
    min_compared: Annotated[
        int | None, typer.Option(help="examples compared before the next wave")
    ] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="on labelled examples")] = None,
    probation_seconds: Annotated[
        float | None, typer.Option(help="shortest probation on a device")
    ] = None,
    probation_examples: Annotated[
        int | None, typer.Option(help="fewest examples in a probation")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="although no device matches yet")
    ] = False,
    json: Json = False,
) -> None:
    """Start a rollout. Each wave must prove itself before the next."""
    name, number = split_version(version)
    terms: dict[str, Any] = {
        "soak_s": soak,
        "deadline_s": deadline,
        "max_failed_fraction": max_failed,
        "max_disagreement": max_disagreement,
        "min_compared": min_compared,
        "max_accuracy_drop": max_accuracy_drop,
        "probation": _given({"min_s": probation_seconds, "min_examples": probation_examples}),
    }
    body = {
        "name": name,
        "version": number,
        "selector": to,
        "waves": [wave.strip() for wave in waves.split(",")],
        "slot": slot,
        "allow_empty": allow_empty,
        "terms": _given(terms),
    }
    with connected() as client:
        document = client.post("/rollouts", body)
    _result(document, json, f"rollout {document['id']} of {version} started")


@app.command("list")
def list_rollouts(json: Json = False) -> None:
    """Newest first."""
    with connected() as client:
        document = client.get("/rollouts")
    if json:
        output.print_json(document)
        return
    output.table(
        ("id", "version", "to", "status", "wave", "devices", "started", "verdict"),
        (_row(rollout) for rollout in document["items"]),
        "no rollout yet: edgeloop rollout start NAME@VERSION --to all",
    )


@app.command()
def show(rollout: RolloutId, json: Json = False) -> None:
    """One rollout with its devices."""
    with connected() as client:
        document = client.get(f"/rollouts/{rollout}")
    if json:
        output.print_json(document)
    else:
        _show(document)


@app.command()
def pause(rollout: RolloutId, json: Json = False) -> None:
    """Offer it to no more devices for now."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/pause")
    _result(document, json, f"rollout {rollout} is paused")


@app.command()
def resume(rollout: RolloutId, json: Json = False) -> None:
    """Go on from a pause."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/resume")
    _result(document, json, f"rollout {rollout} goes on")


@app.command()
def abort(
    rollout: RolloutId,
    reason: Annotated[str, typer.Option(help="kept with the rollout")] = "aborted by hand",
    json: Json = False,
) -> None:
    """End it; devices that have not committed go back."""
    with connected() as client:
        document = client.post(f"/rollouts/{rollout}/abort", {"reason": reason})
    _result(document, json, f"rollout {rollout} is aborted")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _result(document: dict[str, Any], json: bool, sentence: str) -> None:
    if json:
        output.print_json(document)
    else:
        output.say(sentence)


def _row(rollout: dict[str, Any]) -> tuple[Any, ...]:
    counts = rollout["members"]
    return (
        rollout["id"],
        f"{rollout['name']}@{rollout['version']}",
        rollout["selector"],
        rollout["status"],
        f"{rollout['wave']}/{len(rollout['waves'])}",
        f"{counts['committed']}/{sum(counts.values())}",
        output.ago(rollout["started_at"]),
        rollout["verdict"],
    )


def _show(document: dict[str, Any]) -> None:
    counts = document["members"]
    output.facts(
        [
            ("rollout", document["id"]),
            ("version", f"{document['name']}@{document['version']}"),
            ("to", document["selector"]),
            ("slot", document["slot"]),
            ("waves", ", ".join(document["waves"])),
            ("status", document["status"]),
            ("wave", f"{document['wave']} of {len(document['waves'])}"),
            ("verdict", document["verdict"]),
            ("devices", ", ".join(f"{n} {phase}" for phase, n in counts.items() if n)),
            ("started", output.when(document["started_at"])),
            ("ended", output.when(document["ended_at"])),
        ]
    )
    output.table(
        ("gate", "halts", "says", "at"),
        (
            (v["gate"], "yes" if v["halted"] else "", v["sentence"], output.ago(v["at"]))
            for v in document["verdicts"]
        ),
        "no gate was asked yet",
    )
    output.table(
        (">wave", "device", "phase", "offered", "settled", "cause"),
        (
            (
                m["wave"],
                m["device_id"],
                m["phase"],
                output.ago(m["offered_at"]),
                output.ago(m["settled_at"]),
                m["cause"],
            )
            for m in document["devices"]
        ),
        "no device was offered it yet",
    )
