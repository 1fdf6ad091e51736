"""`edgeloop device`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import enrolment, output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode

app = typer.Typer(no_args_is_help=True, help="Look at devices, label them, let them in.")
enrolment.add_to(app)


@app.command("list")
def list_devices(json: Json = False) -> None:
    """Every device, with what its slots run."""
    with connected() as client:
        document = client.get("/devices")
    if json:
        output.print_json(document)
        return
    output.table(
        ("device", "link", "labels", "slot", "state", "runs", "seen"),
        (row for device in document["items"] for row in _rows(device)),
        "no device has said hello yet",
    )


@app.command()
def show(device_id: str, json: Json = False) -> None:
    """One device: inventory, slots, telemetry."""
    with connected() as client:
        document = client.get(f"/devices/{quoted(device_id)}")
    if json:
        output.print_json(document)
    else:
        _show(document)


@app.command()
def label(
    device_id: str,
    labels: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY- takes one away again")
    ],
    json: Json = False,
) -> None:
    """Set labels at the controller; they win over the agent's own."""
    given = dict(_parse(text) for text in labels)
    with connected() as client:
        document = client.patch(f"/devices/{quoted(device_id)}/labels", {"labels": given})
    if json:
        output.print_json(document)
    else:
        output.say(f"{document['id']}: {_labels(document['labels'])}")


@app.command()
def quarantine(
    device_id: str,
    reason: Annotated[str, typer.Option(help="kept with the device")],
    json: Json = False,
) -> None:
    """Roll nothing out to a device that is not trusted; it runs on."""
    _quarantine(device_id, reason, json, f"{device_id} is in quarantine: {reason}")


@app.command()
def release(device_id: str, json: Json = False) -> None:
    """Let a device out of quarantine."""
    _quarantine(device_id, "", json, f"{device_id} is in no quarantine")


def _quarantine(device_id: str, reason: str, json: bool, sentence: str) -> None:
    with connected() as client:
        document = client.put(f"/devices/{quoted(device_id)}/quarantine", {"reason": reason})
    if json:
        output.print_json(document)
    else:
        output.say(sentence)


class Asked(StrEnum):
    LOGS = "logs"
    STATUS = "status"
    CAPTURE = "capture"
    RESTART_RUNNER = "restart-runner"
    RENEW_CERTIFICATE = "renew-certificate"


@app.command()
def diagnose(
    device_id: str,
    asks: Annotated[Asked, typer.Argument(help="what to ask the device for")],
    slot: Annotated[
        str | None, typer.Option(help="whose runner: of logs, without it, the agent's own")
    ] = None,
    lines: Annotated[int, typer.Option(help="of logs, the newest")] = 200,
    examples: Annotated[int, typer.Option(help="of capture: the next that are answered")] = 20,
    timeout_s: Annotated[float, typer.Option("--timeout", help="seconds to wait")] = 15.0,
    json: Json = False,
) -> None:
    """Ask a device for its logs, its status or a slot's next examples, or for a new runner."""
    body = {
        "asks": asks.value.replace("-", "_"),
        "slot": slot,
        "lines": lines,
        "examples": examples,
        "timeout_s": timeout_s,
    }
    with connected() as client:
        document = client.post(f"/devices/{quoted(device_id)}/diagnosis", body)
    if json:
        output.print_json(document)
    elif document["done"]:
        typer.echo(document["text"])
    else:
        output.fail(f"{device_id}: {document['text']}", "", ExitCode.CONFLICT)


def _parse(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if equals and key:
        return key, value
    if not text.endswith("-") or len(text) < 2:
        output.fail(
            f"{text!r} is neither KEY=VALUE nor KEY-", "for example site=lab", ExitCode.USAGE
        )
    return text[:-1], None


def _rows(device: dict[str, Any]) -> list[tuple[Any, ...]]:
    link = "online" if device["online"] else "offline"
    link += ", quarantined" if device["quarantine"] else ""
    labels, seen = _labels(device["labels"]), output.ago(device["last_seen_at"])
    slots = device["slots"] or [{"slot": None, "state": None, "champion": None}]
    return [
        (
            device["id"],
            link,
            labels,
            slot["slot"],
            slot["state"],
            output.version_name(slot["champion"]),
            seen,
        )
        for slot in slots
    ]


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _show(document: dict[str, Any]) -> None:
    inventory = document["inventory"]
    runtimes = ", ".join(f"{r['name']} {r['version']}" for r in inventory["runtimes"])
    output.facts(
        [
            ("device", document["id"]),
            ("link", "online" if document["online"] else "offline"),
            ("seen", f"{output.when(document['last_seen_at'])}"),
            ("quarantine", document["quarantine"] or "no"),
            ("labels", _labels(document["labels"])),
            ("agent", f"{inventory['agent_version']}, Python {inventory['python']}"),
            ("machine", f"{inventory['architecture']}, {inventory['cpu_count']} CPUs"),
            ("memory", output.size(inventory["memory_bytes"])),
            ("disk free", output.size(inventory["disk_free_bytes"])),
            ("runtimes", runtimes),
            ("sensors", ", ".join(inventory.get("sensors", ()))),
            ("revision", f"{document['revision_seen']} of {document['revision_desired']}"),
            ("sent up", output.size(document["bytes_up"])),
        ]
    )
    output.table(
        ("slot", "state", "runs", "assigned", "challenger", "note"),
        (
            (
                slot["slot"],
                slot["state"],
                output.version_name(slot["champion"]),
                output.version_name(slot["assigned"]),
                _challenger(slot["challenger"]),
                _note(slot),
            )
            for slot in document["slots"]
        ),
        "no slot reported",
    )
    output.table(
        ("boot", ">records", ">merged", ">lost", ">repeated"),
        (
            (t["epoch"], t["through"], t["merged"], t["lost"], t["duplicates"])
            for t in document["telemetry"]
        ),
        "no telemetry yet",
    )


def _challenger(reported: dict[str, Any] | None) -> str:
    if reported is None:
        return ""
    return f"{output.version_name(reported['version'])} {reported['state']}"


def _note(slot: dict[str, Any]) -> str:
    if slot["waiting"]:
        return f"waits: {slot['waiting']}"
    if slot["refused"]:
        return (
            f"refused {output.version_name(slot['refused']['version'])}: {slot['refused']['cause']}"
        )
    return ""
