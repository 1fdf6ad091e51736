"""`edgeloop rollout show --watch`: waves, gates and devices, drawn as they move.

Invariants: `drawn` is a function of the document and the time alone; a controller that does not
answer ends nothing: the last picture stays, and says so. Where the output is no terminal, or asked
for as JSON, there is a line for each thing that changed instead of a picture.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeloop.errors import ApiError
from edgeloop_controller.cli import output

ENDED: Final = ("done", "halted", "aborted")
DEVICES_SHOWN_MAX: Final = 12
BAR_CHARS: Final = 40
_PHASES: Final = (
    ("committed", "green", "█"),
    ("failed", "red", "█"),
    ("offered", "cyan", "▒"),
    ("withdrawn", "yellow", "░"),
    ("held", "yellow", "░"),
)
_STAGES: Final = (
    ("given", "cyan", "▒"),
    ("refused", "red", "█"),
    ("taken_back", "yellow", "░"),
)

Look = Callable[[], dict[str, Any]]


def watch_rollout(look: Look, interval_s: float, as_json: bool) -> None:
    """Until it ends, or Ctrl-C. Raises ApiError when the first look fails."""
    document = look()
    console = output.console()
    try:
        if as_json or not console.is_terminal:
            _tell(look, document, interval_s, as_json)
            return
        with Live(drawn(document, time.time()), console=console, auto_refresh=False) as live:
            while document["status"] not in ENDED:
                time.sleep(interval_s)
                document, problem = _again(look, document)
                live.update(drawn(document, time.time(), problem), refresh=True)
    except KeyboardInterrupt:
        return


def _again(look: Look, last: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What there is now, or was last, and why it is not now's."""
    try:
        return look(), ""
    except ApiError as error:
        if error.status is not None:
            raise
        return last, error.message


def _tell(look: Look, document: dict[str, Any], interval_s: float, as_json: bool) -> None:
    said: Any = None
    while True:
        counts = {phase: n for phase, n in document["members"].items() if n}
        state = (document["status"], document["wave"], document["verdict"], counts)
        if state != said:
            said = state
            output.say(json.dumps(document) if as_json else line(document))
        if document["status"] in ENDED:
            return
        time.sleep(interval_s)
        document, _ = _again(look, document)


def line(document: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {phase}" for phase, n in document["members"].items() if n)
    return f"{output.when(time.time())}  {document['status']}: {document['verdict']} ({counts})"


def drawn(document: dict[str, Any], now: float, problem: str = "") -> RenderableType:
    """The picture of one moment."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"rollout {document['id']}", "bold"),
            f" of {document['name']}@{document['version']} to {document['selector']}: ",
            (document["status"], output.COLOURS.get(document["status"], "")),
        ),
        Text(document["verdict"]),
        _waves(document),
    ]
    if document["verdicts"]:
        parts.append(_gates(document))
    parts.append(_devices(document, now))
    if problem:
        parts.append(Text(f"{problem}; this is the last that was seen", "yellow"))
    return Group(*parts)


def _waves(document: dict[str, Any]) -> Table:
    """A bar for each wave: its devices by phase; before them one for the shadow phase."""
    table = Table(box=None, show_header=False, pad_edge=False)
    shadow = document.get("shadow")  # an older controller says nothing of it
    is_in_shadow = shadow is not None and shadow["outcome"] is None
    if shadow is not None:
        table.add_row(*_shadow(document, shadow))
    for number, size in enumerate(document["waves"], start=1):
        phases = Counter(m["phase"] for m in document["devices"] if m["wave"] == number)
        known = sum(phases[phase] for phase, _, _ in _PHASES)
        bar = Text()
        for phase, colour, mark in _PHASES:
            share = phases[phase] / known if known else 0.0
            bar.append(mark * round(share * BAR_CHARS), colour)
        words = ", ".join(f"{phases[p]} {p}" for p, _, _ in _PHASES if phases[p])
        goes_on = document["status"] == "running" and not is_in_shadow
        mark = "▶" if number == document["wave"] and goes_on else " "
        table.add_row(f"{mark} wave {number}", size, bar, words or "-")
    return table


def _shadow(document: dict[str, Any], shadow: dict[str, Any]) -> tuple[str, str, Text, str]:
    """As a bar of devices like a wave's, but that none of them is exposed."""
    stages = Counter(one["stage"] for one in shadow["devices"])
    bar = Text()
    for stage, colour, mark in _STAGES:
        bar.append(mark * round(stages[stage] / max(1, stages.total()) * BAR_CHARS), colour)
    words = ", ".join(f"{stages[s]} {s.replace('_', ' ')}" for s, _, _ in _STAGES if stages[s])
    outcome = (shadow["outcome"] or "").replace("_", " ")
    is_on = shadow["outcome"] is None and document["status"] == "running"
    said = f"{outcome}: {shadow['sentence']}" if outcome else words or "-"
    return f"{'▶' if is_on else ' '} shadow", str(shadow["asked"]), bar, said


def _gates(document: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("gate")
    table.add_column("")
    table.add_column("says", overflow="fold")
    for verdict in document["verdicts"]:
        stands = Text("halts", "red") if verdict["halted"] else Text("holds", "green")
        table.add_row(verdict["gate"], stands, output.shown(verdict["sentence"]))
    return table


def _devices(document: dict[str, Any], now: float) -> RenderableType:
    """Those under way first, then those that moved last."""
    moved = sorted(
        (m for m in document["devices"] if m["offered_at"] is not None),
        key=lambda m: (m["phase"] != "offered", -(m["settled_at"] or m["offered_at"])),
    )
    if not moved:
        return Text("no device was offered it yet", "dim")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "wave", "phase", "since", "cause"):
        table.add_column(column, overflow="fold")
    for member in moved[:DEVICES_SHOWN_MAX]:
        since_s = max(0.0, now - (member["settled_at"] or member["offered_at"]))
        table.add_row(
            output.shown(member["device_id"]),
            str(member["wave"]),
            Text(member["phase"], output.COLOURS.get(member["phase"], "")),
            output.span(since_s),
            output.shown(member["cause"]),
        )
    left = len(moved) - DEVICES_SHOWN_MAX
    return Group(table, Text(f"and {left} more", "dim")) if left > 0 else table
