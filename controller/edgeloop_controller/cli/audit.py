"""`edgeloop audit`."""

import datetime
import json as json_text
import re
import time
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.control import audit_chain as chain

UNITS_S: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
DETAIL_MAX_CHARS: Final = 200
_SPAN: Final = re.compile(r"([0-9]{1,9})(s|min|h|d)")


app = typer.Typer()


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    subject: Annotated[
        str | None, typer.Option(help="`rollout:4`, `device:watch-3`, `version:watch@2` …")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="who asked")] = None,
    since: Annotated[
        str | None, typer.Option(help="`2h`, `30min`, `7d`, or `2026-11-28T03:00` local time")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest ones")] = 50,
    json: Json = False,
) -> None:
    """Who changed what, from where, and what came of it; oldest first."""
    if context.invoked_subcommand is not None:
        return
    query = {"subject": subject, "actor": actor, "since": _time(since), "limit": limit}
    with connected() as client:
        document = client.get("/audit", **query)
    if json:
        output.print_json(document)
        return
    for entry in document["items"]:
        output.entry(
            output.when(entry["at"]), entry["outcome"], _subject(entry), _what(entry), width=7
        )
        if entry["passed_over"]:
            output.say(f"  ({entry['passed_over']} refused requests before this have no entry)")
    if not document["items"]:
        output.say("no such entry")
    elif not all(entry["authenticated"] for entry in document["items"]):
        output.say("(a name with ? is as the sender gave it: nobody checked it)")


@app.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(help="ID:HASH that an earlier run printed: it must still be in the chain"),
    ] = None,
    json: Json = False,
) -> None:
    """Read the whole log and compute its chain here: nothing in it was changed or taken out."""
    with connected() as client:
        found = chain.verify(client, _head(head))
    if json:
        output.print_json(asdict(found))
    elif found.problem:
        output.fail(found.problem, f"{found.verified} entries before it are whole", ExitCode.FAILED)
    else:
        older = f" ({found.unchained} older than the chain)" if found.unchained else ""
        output.say(f"{found.verified} entries are whole{older}")
        if found.head:
            output.say(f"head: {found.head}")
            output.say("keep it elsewhere; `audit verify --head` proves later that it still holds")
    if found.problem:
        raise typer.Exit(ExitCode.FAILED)


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, link = text.partition(":")
    if not number.isdigit() or re.fullmatch(r"[0-9a-f]{64}", link) is None:
        output.fail(f"--head {text!r} is no head", "ID:HASH, as verify prints it", ExitCode.USAGE)
    return int(number), link


def _subject(entry: dict[str, Any]) -> str:
    return str(entry["created"] or entry["subject"])


def _what(entry: dict[str, Any]) -> str:
    essence = json_text.dumps(entry["essence"], ensure_ascii=False) if entry["essence"] else ""
    if len(essence) > DETAIL_MAX_CHARS:
        essence = essence[: DETAIL_MAX_CHARS - 1] + "…"
    path = entry["path"].removeprefix("/v1")
    where = f" from {entry['address']}" if entry["address"] else ""
    doubt = "" if entry["authenticated"] else "?"
    parts = (f"by {entry['actor']}{doubt}{where}:", entry["method"], path, essence)
    why = f"-> {entry['detail']}" if entry["detail"] else ""
    return " ".join(filter(None, (*parts, why)))


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span is not None:
        return time.time() - int(span[1]) * UNITS_S[span[2]]
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        hint = "for example 2h, 30min, 7d, 2026-11-28 or 2026-11-28T03:00"
        output.fail(f"--since {text!r} is no time", hint, ExitCode.USAGE)
