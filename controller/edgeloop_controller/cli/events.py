"""`edgeloop events`.

Invariants: with --follow each event is printed once, in the order of ids, however often the
controller goes away and comes back; what it goes on from is the id that it was given last.
"""

import json as json_text
import random
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from edgeloop.errors import ApiError
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import Json, connected
from edgeloop_protocol.backoff import backoff_s

FOLLOW_S: Final = 1.0
AWAY_S_MAX: Final = 30.0
PAGE_MAX: Final = 1000
DETAIL_MAX_CHARS: Final = 400


def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on until Ctrl-C, over restarts, too")
    ] = False,
    kind: Annotated[str | None, typer.Option(help="`rollout.halted`, or `rollout.*`")] = None,
    subject: Annotated[str | None, typer.Option(help="`watch@3`, a device's id …")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="ID", help="those behind it; none: the newest")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX)] = 50,
    json: Json = False,
) -> None:
    """What happened. With --follow and --json: one document a line."""

    def ask(since: int | None, most: int) -> Any:
        query = {"kind": kind, "subject": subject, "limit": most, "after": since}
        return client.get("/events", **query)

    with connected() as client:
        document = ask(after, limit)
        if json and not follow:
            output.print_json(document)
            return
        for event in document["items"]:
            _print_event(event, json)
        if not follow:
            return
        try:
            for event in followed(lambda since: ask(since, PAGE_MAX), document["next"]):
                _print_event(event, json)
        except KeyboardInterrupt:
            return


def followed(
    ask: Callable[[int], Any], after: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Any]:
    """Events behind `after`, for ever. Raises ApiError for what no waiting mends."""
    failures, full = 0, False
    while True:
        if failures:
            sleep(backoff_s(failures, random.random(), FOLLOW_S, AWAY_S_MAX))  # noqa: S311
        elif not full:
            sleep(FOLLOW_S)
        try:
            document = ask(after)
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise
            failures, full = failures + 1, False
            if failures == 1:
                output.errors.print(f"[dim]{escape(error.message)}: trying again[/]")
            continue
        if failures:
            output.errors.print("[dim]the controller is back[/]")
        failures, full = 0, len(document["items"]) == PAGE_MAX
        yield from document["items"]
        after = document["next"]


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_text.dumps(event, ensure_ascii=False))
        return
    output.entry(output.when(event["at"]), event["kind"], event["subject"], _detail(event["data"]))


def _detail(data: dict[str, Any]) -> str:
    parts = []
    for key, value in data.items():
        if value in (None, "", [], {}) or key == "at":  # the device's own clock
            continue
        if isinstance(value, dict):
            is_version = {"name", "version"} <= value.keys()
            value = f"{value['name']}@{value['version']}" if is_version else _detail(value)
        if isinstance(value, float):
            value = f"{value:.4g}"
        parts.append(f"{key}={', '.join(map(str, value)) if isinstance(value, list) else value}")
    text = ", ".join(parts)
    return text if len(text) <= DETAIL_MAX_CHARS else text[: DETAIL_MAX_CHARS - 1] + "…"
