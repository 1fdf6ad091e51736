"""`edgeloop challenger`."""

from typing import Annotated, Any

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, VersionArgument, connected, split_version

app = typer.Typer(
    no_args_is_help=True, help="Run a version in shadow beside the champions, and compare them."
)

ChallengerId = Annotated[int, typer.Argument(metavar="CHALLENGER")]


@app.command()
def start(
    version: VersionArgument,
    to: Annotated[str, typer.Option(metavar="SELECTOR", help="`all`, `site=lab, !spare` …")],
    slot: str = "main",
    cpu: Annotated[
        float, typer.Option(metavar="FRACTION", help="of one core; beyond it examples are skipped")
    ] = 0.1,
    memory: Annotated[
        int,
        typer.Option(metavar="BYTES", help="beyond it the device refuses it; 0: the manifest's"),
    ] = 0,
    json: Json = False,
) -> None:
    """It sees what the champions are asked, and answers nobody."""
    name, number = split_version(version)
    body = {
        "name": name,
        "version": number,
        "selector": to,
        "slot": slot,
        "budget": {"cpu_fraction": cpu, "memory_bytes": memory},
    }
    with connected() as client:
        document = client.post("/challengers", body)
    _result(document, json, f"challenger {document['id']}, {version}, is started")


@app.command("list")
def list_challengers(json: Json = False) -> None:
    """Newest first."""
    with connected() as client:
        document = client.get("/challengers")
    if json:
        output.print_json(document)
        return
    output.table(
        (
            "id",
            "version",
            "to",
            "slot",
            "in shadow",
            "answers",
            "unlike",
            "skipped",
            "started",
            "ended",
        ),
        (_row(challenger) for challenger in document["items"]),
        "no challenger yet: edgeloop challenger start NAME@VERSION --to all",
    )


@app.command()
def show(challenger: ChallengerId, json: Json = False) -> None:
    """One challenger, device by device."""
    with connected() as client:
        document = client.get(f"/challengers/{challenger}")
    if json:
        output.print_json(document)
    else:
        _show(document)


@app.command()
def stop(challenger: ChallengerId, json: Json = False) -> None:
    """Take it from its devices; what it showed stays."""
    with connected() as client:
        document = client.post(f"/challengers/{challenger}/stop")
    _result(document, json, f"challenger {challenger} is stopped")


def _result(document: dict[str, Any], json: bool, sentence: str) -> None:
    if json:
        output.print_json(document)
    else:
        output.say(sentence)


def _row(challenger: dict[str, Any]) -> tuple[Any, ...]:
    count, unlike, skipped = _shares(challenger["seen"])
    return (
        challenger["id"],
        f"{challenger['name']}@{challenger['version']}",
        _for(challenger),
        challenger["slot"],
        f"{challenger['in_shadow']}/{challenger['devices']}",
        count,
        unlike,
        skipped,
        output.ago(challenger["started_at"]),
        output.ago(challenger["ended_at"]),
    )


def _for(challenger: dict[str, Any]) -> str:
    """Who has it: by a selector, or as a rollout's lot would have it."""
    rollout = challenger["rollout_id"]
    selector: str = challenger["selector"]
    return selector if rollout is None else f"{selector}, by rollout {rollout}"


def _shares(seen: dict[str, Any] | None) -> tuple[str, str, str]:
    """Answers, the share unlike the champion's, and the share of examples that it never saw."""
    if seen is None:
        return "0", "", ""
    count, offered = seen["count"], seen["count"] + seen["skipped"]
    unlike = f"{seen['disagreements'] / count:.1%}" if count else ""
    return str(count), unlike, f"{seen['skipped'] / offered:.0%}" if offered else ""


def _show(document: dict[str, Any]) -> None:
    count, unlike, skipped = _shares(document["seen"])
    budget = document["budget"]
    memory_bytes = budget["memory_bytes"]
    output.facts(
        [
            ("challenger", document["id"]),
            ("version", f"{document['name']}@{document['version']}"),
            ("to", _for(document)),
            ("slot", document["slot"]),
            ("processor", f"at most {budget['cpu_fraction']:.0%} of one core"),
            ("memory", output.size(memory_bytes) if memory_bytes else "as its manifest says"),
            ("devices", f"{document['devices']}, {document['in_shadow']} in shadow"),
            ("answers", count),
            ("unlike the champion's", unlike),
            ("examples skipped", skipped),
            ("started", output.when(document["started_at"])),
            ("ended", output.when(document["ended_at"])),
        ]
    )
    output.table(
        ("device", "state", "answers", "unlike", "skipped", "errors", "p95 us", "memory", "why"),
        (_device_row(one) for one in document["by_device"]),
        "no device has it yet",
    )


def _device_row(one: dict[str, Any]) -> tuple[Any, ...]:
    seen = one["seen"]
    figures: tuple[Any, ...] = ("", "", "")
    if seen is not None:
        wrong = seen["errors"] + seen["nonfinite"]
        figures = (wrong, round(seen["latency_p95_us"]), output.size(seen["memory_bytes"]))
    why = one["cause"] or one["waiting"]
    return (one["device_id"], one["state"], *_shares(seen), *figures, why)
