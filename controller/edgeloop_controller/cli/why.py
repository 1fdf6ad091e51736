"""`edgeloop why`."""

from typing import Any, Final

import typer

from edgeloop.client import quoted
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode

LEADS: Final = {"person": "!", "waits": "…", "none": "·"}
NOTHING: Final = "nothing"


def why(device_id: str, json: Json = False) -> None:
    """What a device should run, what it runs, what it waits for, and what you can do.

    `!` wants a person, `…` goes on by itself.
    """
    with connected() as client:
        document = client.get(f"/devices/{quoted(device_id)}/why")
    if json:
        output.print_json(document)
    else:
        _show(document)
    if not document["known"]:
        raise typer.Exit(ExitCode.NOT_FOUND)


def _show(document: dict[str, Any]) -> None:
    if document["known"]:
        link = "online" if document["online"] else "offline"
        seen = output.ago(document["last_seen_at"])
        output.say(f"{document['device']} is {link}, heard {seen}")
    for explanation in document["explanations"]:
        _explain(explanation)
    for slot in document["slots"]:
        should = slot["should_run"] or "nothing in particular"
        output.say(f"slot {slot['slot']}: should run {should}, runs {slot['runs'] or 'nothing'}")
        for explanation in slot["explanations"]:
            _explain(explanation)


def _explain(explanation: dict[str, Any]) -> None:
    since = explanation["since"]
    when = f" (since {output.when(since)}, {output.ago(since)})" if since is not None else ""
    lead = LEADS.get(explanation["concern"], "·")
    output.paragraph(f"  {lead} {explanation['sentence']}{when}", "    ")
    output.paragraph(f"    because: {explanation['cause']}", " " * 13)
    if explanation["remedy"] != NOTHING:
        output.paragraph(f"    to do:   {explanation['remedy']}", " " * 13)
