"""The charts of a virtual world's report, as SVG: one time axis, faults behind everything.

Invariants: drawn from the report's document alone; what stands above each other happened at the
same time; a colour never stands alone, a name or a mark says the same.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from edgeloop_simulators.charts import lanes, line, text
from edgeloop_simulators.virtual.report.chart_parts import (
    CHAR,
    LANE,
    Axis,
    Document,
    cut,
    grid,
    names_at_end,
    polyline,
    rect,
    steps,
    stretches,
    svg,
)

HEIGHT: Final = 190
ROW: Final = 17
WAVE_LANES: Final = 3


def fault_chart(axis: Axis) -> str:
    """One bar a fault or change of the world, with its name, in lanes."""
    bars = [
        *((f["from_s"], f["to_s"], _named(f), "alarm") for f in axis.document["faults"]),
        *((c["at_s"], c["at_s"], c["text"], "world") for c in axis.document["world"]),
        *((b, e, "controller down", "bad") for b, e in axis.document["controller_down"]),
    ]
    bars.sort()
    rows = _placed(axis, [(axis.x(begin), axis.x(end), name) for begin, end, name, _ in bars])
    parts = []
    for (begin, end, name, tone), row in zip(bars, rows, strict=True):
        y = 8 + row * LANE
        parts.append(rect(axis, begin, end, y, LANE - 8, f"fill {tone}", 4.0, name))
        x, style = _beside(axis, begin, end, name)
        parts.append(text(x, y + 10, name, style))
    bottom = 12 + (max(rows, default=0) + 1) * LANE
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "Faults and changes of the world over time")


def _named(fault: Document) -> str:
    """`power cut of site:mine`: the time is where it stands."""
    return str(fault["text"]).split(" at ")[0].replace("_", " ")


def _beside(axis: Axis, begin: float, end: float, name: str) -> tuple[float, str]:
    """To the right of a bar, or to its left where there is no room."""
    right = max(axis.x(end), axis.x(begin) + 4) + 6
    if right + len(name) * CHAR <= axis.shape.width:
        return right, "lane"
    return axis.x(begin) - 6, "lane end"


def _placed(axis: Axis, bars: Sequence[tuple[float, float, str]]) -> list[int]:
    """A lane for each bar and its name, so that none touches another."""
    taken: list[list[tuple[float, float]]] = []
    rows = []
    for begin, end, name in bars:
        width = len(name) * CHAR + 14
        fits_right = end + width <= axis.shape.width
        span = (begin, end + width) if fits_right else (begin - width, end + 4)
        row = next(
            (
                number
                for number, lane in enumerate(taken)
                if all(span[1] <= other[0] or span[0] >= other[1] for other in lane)
            ),
            len(taken),
        )
        if row == len(taken):
            taken.append([])
        taken[row].append(span)
        rows.append(row)
    return rows


def fleet_chart(axis: Axis) -> str:
    """How many devices run which version, stacked; the line: how many are connected."""
    document = axis.document
    times, running = document["times"], document["series"]["running"]
    total = max(len(document["devices"]), 1)
    top, bottom = 12.0, 12.0 + HEIGHT

    def y_of(count: float) -> float:
        return round(bottom - count / total * HEIGHT, 1)

    levels = [(float(count), f"{count}") for count in (0, total // 2, total)]
    parts = list(grid(axis, levels, y_of))
    below = [0] * len(times)
    names = []
    for version, counts in running.items():
        above = [a + b for a, b in zip(below, counts, strict=True)]
        points = [*steps(axis, times, above, y_of), *reversed(steps(axis, times, below, y_of))]
        title = f"<title>{escape(axis.shown(version))}</title>"
        listed = " ".join(f"{x},{y}" for x, y in points)
        style = f"area {axis.style(version)}"
        parts.append(f'<polygon class="{style}" points="{listed}">{title}</polygon>')
        if counts[-1]:
            middle = y_of((below[-1] + above[-1]) / 2)
            names.append((middle, axis.shown(version), axis.style(version)))
        below = above
    parts += axis.faults(top, bottom)
    connected = steps(axis, times, document["series"]["connected"], y_of)
    parts.append(polyline(connected, "line connected"))
    parts += names_at_end(axis, names, top, bottom)
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "Devices by the version that they run, over time")


def exposure_chart(axis: Axis) -> str:
    """For each rollout but the first of a fleet: the share of its devices that ever ran it."""
    top, bottom = 14.0 + 12 * WAVE_LANES, 14.0 + 12 * WAVE_LANES + HEIGHT

    def y_of(share: float) -> float:
        return round(bottom - share * HEIGHT, 1)

    parts = list(grid(axis, [(0, "0%"), (0.5, "50%"), (1, "100%")], y_of))
    parts += axis.faults(top, bottom)
    names, marks = [], []
    for rollout in axis.document["rollouts"]:
        style, matching = axis.style(rollout["version"]), max(rollout["matching"], 1)
        end_s = rollout["ended_s"] or axis.ends_s
        points = [(axis.x(rollout["started_s"]), y_of(0))]
        for number, at_s in enumerate(rollout["exposed"], start=1):
            points += [(axis.x(at_s), points[-1][1]), (axis.x(at_s), y_of(number / matching))]
        points.append((max(axis.x(end_s), points[-1][0]), points[-1][1]))
        parts.append(polyline(points, f"line {style}"))
        names.append((points[-1][0] + 12, points[-1][1] + 4, rollout, style))
        wave = "wave " if axis.shape.names else ""
        marks += [(axis.x(at), f"{wave}{n}") for n, at in enumerate(rollout["waves_at_s"], 1)]
        parts.append(_end_mark(points[-1], rollout["status"]))
    for (x, name), lane in zip(
        marks, lanes([x for x, _ in marks], 54 if axis.shape.names else 14), strict=True
    ):
        if lane < WAVE_LANES:
            parts.append(line(x, top - 4, x, bottom, "event work"))
            parts.append(text(x, top - 8 - lane * 12, name, "tick middle"))
    for x, y, rollout, style in names if axis.shape.names else ():
        name = f"{axis.shown(rollout['version'])}: {rollout['status']}"
        parts.append(text(x, y, name, f"name {style}"))
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "Share of devices that ever ran each version, over time")


def _end_mark(at: tuple[float, float], status: str) -> str:
    """A tick where it is done, a cross where it was stopped, nothing while it goes on."""
    x, y = at
    if status == "done":
        return f'<path class="mark good" d="M{x - 4},{y} l3,4 l6,-8"/>'
    if status in ("halted", "aborted"):
        return f'<path class="mark bad" d="M{x - 4},{y - 4} l8,8 m0,-8 l-8,8"/>'
    return ""


def accuracy_chart(axis: Axis) -> str:
    """Rolling share of right answers by version, and of the whole fleet."""
    top, bottom = 12.0, 12.0 + HEIGHT
    series = axis.document["series"]["accuracy"]
    times = axis.document["times"]
    given = [value for values in series.values() for value in values if value is not None]
    least = min(given, default=0.0)
    step = 5 if least >= 0.8 else 10 if least >= 0.5 else 25
    low = max(0, int(least * 100 - step / 2) // step * step) / 100

    def y_of(share: float) -> float:
        return round(bottom - (share - low) / (1 - low) * HEIGHT, 1)

    levels = [percent / 100 for percent in range(round(low * 100), 101, step)]
    parts = list(grid(axis, [(level, f"{level:.0%}") for level in levels], y_of))
    parts += axis.faults(top, bottom)
    names = []
    for version, values in sorted(series.items(), key=lambda one: one[0] != "all"):
        style = "whole" if version == "all" else axis.style(version)
        for stretch in stretches(axis, times, values, y_of):
            parts.append(polyline(stretch, f"line {style}"))
        last = next((value for value in reversed(values) if value is not None), None)
        if values[-1] is not None and last is not None:
            names.append((y_of(last), "all devices" if version == "all" else version, style))
    parts += names_at_end(axis, names, top, bottom)
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "Accuracy of each version against ground truth, over time")


def strip_chart(axis: Axis) -> str:
    """One row a device: its version, paler on trial; hollow while it is not connected, gone while
    it is off; a cross where it rolled a version back."""
    parts: list[str] = []
    devices = [device for device in axis.document["devices"] if "spans" in device]
    bottom = 10 + len(devices) * ROW
    parts += axis.faults(6, bottom)
    for row, device in enumerate(devices):
        y = 10 + row * ROW
        parts.append(text(axis.left - 10, y + 11, cut(axis, device["id"]), "tick end"))
        for span in device["spans"]:
            style = f"fill {axis.style(span['version'])}{' trial' if span['trial'] else ''}"
            title = f"{device['id']}: {axis.shown(span['version'])}"
            title += " on trial" if span["trial"] else ""
            parts.append(rect(axis, span["from_s"], span["to_s"], y, ROW - 4, style, 0.6, title))
        for from_s, to_s in device["unconnected"]:
            parts.append(rect(axis, from_s, to_s, y + 4, ROW - 12, "hollow", 0.4, "not connected"))
        for from_s, to_s in device["off"]:
            parts.append(rect(axis, from_s, to_s, y, ROW - 4, "off", 0.6, "off"))
        for at_s in device["rolled_back_s"]:
            x, middle = axis.x(at_s), y + (ROW - 4) / 2
            parts.append(f'<path class="mark bad" d="M{x - 4},{middle - 4} l8,8 m0,-8 l-8,8"/>')
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "The version that each device runs, over time")
