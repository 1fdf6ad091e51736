"""The charts of what the controller judged by: a rollout's gates and the drift scores, each against
its bound.

Invariants: drawn from the report's document alone; a bound is dashed and named; what was measured
has the colour of its version; rows of one chart share its time axis.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from edgeloop_simulators.charts import lanes, line, text
from edgeloop_simulators.virtual.report.chart_parts import (
    CHAR,
    LANE,
    Axis,
    Document,
    Shape,
    cut,
    polyline,
    rect,
    steps,
    stretches,
    svg,
)

TALL: Final = 92
LOW: Final = 46
TITLE: Final = 20
GAP: Final = 14
WAVE_LANES: Final = 2
DOTS_MAX: Final = 40
"""Of more points, the line alone."""
SCALE_OVER_BOUND: Final = 3.0
"""How far beyond what is needed a row of counts reaches; its last value is told in words."""
PAD: Final = 0.04
"""Of a rollout's time, before and after it."""

PERCENTS: Final = ((0.0, "0%"), (0.5, "50%"), (1.0, "100%"))

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Row:
    """One plot of a chart: values from `low` to `high` over its height; beyond these, at its
    edge."""

    top: float
    height: float
    low: float
    high: float

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.bottom - share * self.height, 1)


Drawn = tuple[Sequence[str], _Row | None]


@dataclass(frozen=True)
class _Rollout:
    """`points` of its time; each holds until the next, the last until `ended_s`."""

    axis: Axis
    document: Document
    points: Sequence[Document]
    ended_s: float

    @property
    def style(self) -> str:
        return self.axis.style(self.document["version"])

    def stepped(self, row: _Row, points: Sequence[Document], name: str) -> Points:
        times = [*(point["at_s"] for point in points), self.ended_s]
        values = [*(point[name] for point in points), points[-1][name]]
        return steps(self.axis, times, values, row.y)

    def measured(
        self, row: _Row, points: Sequence[Document], name: str, style: str
    ) -> Iterator[str]:
        yield polyline(self.stepped(row, points, name), f"line {style}")
        for point in points if len(points) <= DOTS_MAX else ():
            x, y = self.axis.x(point["at_s"]), row.y(point[name])
            yield f'<circle class="point {style}" cx="{x}" cy="{y}" r="3"/>'

    def whiskers(self, row: _Row, points: Sequence[Document]) -> Iterator[str]:
        """The bounds at each look: what came just before the end has no width to be a band."""
        for point in points if len(points) <= DOTS_MAX else ():
            x = self.axis.x(point["at_s"])
            yield line(x, row.y(point["low"]), x, row.y(point["high"]), f"whisker {self.style}")


def gate_axis(document: Document, rollout: Document, shape: Shape) -> Axis:
    """The rollout's own time, so that minutes can be seen in a world of weeks."""
    begins_s = rollout["started_s"]
    ends_s = max(rollout["ended_s"] or document["ends_s"], begins_s + 1)
    pad_s = (ends_s - begins_s) * PAD
    return Axis(document, shape, (begins_s - pad_s, ends_s + pad_s), begins_s)


def gate_chart(axis: Axis, rollout: Document) -> str:
    """What each gate measured, over the time of one rollout; the upright line: how it ended."""
    ended_s = rollout["ended_s"] or axis.document["ends_s"]
    points = [point for point in rollout["gates"]["points"] if point["at_s"] <= ended_s]
    of = _Rollout(axis, rollout, points, ended_s)
    rows: list[str] = []
    top = bottom = 22.0 + 12 * WAVE_LANES
    for draw in (_disagreement, _compared, _failures, _labelled):
        drawn, row = draw(of, bottom + TITLE)
        if row is not None:
            rows += [*axis.faults(row.top, row.bottom), *drawn]
            bottom = row.bottom + GAP
    bottom -= GAP
    parts = [*_waves(axis, rollout, top, bottom), *_ending(axis, rollout, bottom), *rows]
    parts += axis.time(bottom)
    label = f"What the gates of {rollout['version']} measured, over its rollout"
    return svg(axis, bottom + 30, parts, label)


def _disagreement(of: _Rollout, top: float) -> Drawn:
    known = [point for point in of.points if "disagreement" in point]
    if not known:
        return (), None
    row = _Row(top, TALL, 0.0, 1.0)
    against = ", ".join(dict.fromkeys(point["against"] for point in known))
    first = {**known[0], "at_s": of.document["started_s"]}
    return (
        *_titled(of.axis, row, f"Disagreement with {against}"),
        *_levels(of.axis, row, PERCENTS),
        _band(of.stepped(row, known, "high"), of.stepped(row, known, "low"), of.style),
        *_bound(
            of.axis,
            of.stepped(row, [first, *known[1:]], "bound"),
            f"bound {known[-1]['bound']:.0%}",
        ),
        *of.whiskers(row, known),
        *of.measured(row, known, "disagreement", of.style),
    ), row


def _compared(of: _Rollout, top: float) -> Drawn:
    """Not where there was nothing to compare with."""
    gates = of.document["gates"]
    last, needed = of.points[-1]["compared"], gates["terms"]["min_compared"]
    if not last and not (needed and gates["replaces"]):
        return (), None
    row = _Row(top, LOW, 0.0, min(max(last, needed, 1), SCALE_OVER_BOUND * (needed or math.inf)))
    beyond = "over " if last > row.high else ""
    wanted = f" of {_count(needed)} needed" if needed else ""
    across = [(of.axis.x(at_s), row.y(needed)) for at_s in (of.document["started_s"], of.ended_s)]
    return (
        *_titled(of.axis, row, f"Examples compared: {_count(last)}{wanted}"),
        *_levels(of.axis, row, [(0, "0"), (row.high, beyond + _count(row.high))]),
        *(_bound(of.axis, across, f"needed {_count(needed)}", "goal") if needed else ()),
        *of.measured(row, of.points, "compared", of.style),
    ), row


def _failures(of: _Rollout, top: float) -> Drawn:
    most = max(1, *(point["members"] for point in of.points))
    row, last = _Row(top, LOW, 0.0, most), of.points[-1]
    members = of.stepped(row, of.points, "members")
    floor = [(members[0][0], row.bottom), (members[-1][0], row.bottom)]
    title = f"Devices that rolled it back: {last['failed']} of {last['members']}"
    return (
        *_titled(of.axis, row, title),
        _band(members, floor, "work"),
        *_levels(of.axis, row, [(0, "0"), (most, _count(most))]),
        *_bound(of.axis, of.stepped(row, of.points, "allowed"), f"bound {last['allowed']}"),
        *of.measured(row, of.points, "failed", "bad"),
    ), row


def _labelled(of: _Rollout, top: float) -> Drawn:
    """The old version's share on the same examples, less the drop that is allowed, is the bound."""
    known = [
        {**point, "least": point["old_right"] - point["allowed_drop"]}
        for point in of.points
        if "right" in point
    ]
    if not known:
        return (), None
    row = _Row(top, TALL, 0.0, 1.0)
    return (
        *_titled(of.axis, row, f"Right on labelled examples: {_count(known[-1]['labelled'])}"),
        *_levels(of.axis, row, PERCENTS),
        *_bound(of.axis, of.stepped(row, known, "least"), f"least {known[-1]['least']:.0%}"),
        *of.measured(row, known, "right", of.style),
    ), row


def _waves(axis: Axis, rollout: Document, top: float, bottom: float) -> Iterator[str]:
    """When each began; a name where there is room for it."""
    wide = axis.shape.names
    places = [axis.x(at_s) for at_s in rollout["waves_at_s"]]
    placed = lanes(places, 54 if wide else 46)
    for number, (x, lane) in enumerate(zip(places, placed, strict=True), start=1):
        yield line(x, top - 4, x, bottom, "event work")
        if lane < WAVE_LANES:
            yield text(x, top - 8 - lane * 12, f"wave {number}", "tick middle")


def _ending(axis: Axis, rollout: Document, bottom: float) -> Iterator[str]:
    """When the verdict fell, and what it was; its words stand below the chart."""
    status, ended_s = rollout["status"], rollout["ended_s"]
    if ended_s is None:
        yield text(axis.right, 14, f"{status}, no verdict yet", "tick end")
        return
    tone = "good" if status == "done" else "bad"
    gate = next((one["gate"] for one in rollout["gates"]["said"] if one["halted"]), "")
    words = f"halted by {gate}" if status == "halted" and gate else status
    x = axis.x(ended_s)
    yield line(x, 20, x, bottom, f"verdict-line {tone}")
    yield text(x + 4, 14, words, f"name end {tone}")


# ---- drift --------------------------------------------------------------------------------------

_ROWS: Final = (
    ("fleet", "Fleet against training data (PSI)"),
    ("fleet_ks", "Fleet, KS distance (no threshold)"),
    ("label", "Highest label against training data (PSI)"),
    ("device", "Highest device against its own past (PSI)"),
    ("sensor", "Highest sensor, beyond the others (PSI)"),
)


def drift_chart(axis: Axis) -> str:
    """Each score against its threshold, in rows; below, when alarms were open."""
    parts: list[str] = []
    bottom = 4.0
    for scope, title in _ROWS:
        scored = [one for one in axis.document["drift_scores"] if scope in one["series"]]
        if scored:
            row = _score_row(scored, scope, bottom + TITLE)
            parts += [*axis.faults(row.top, row.bottom), *_titled(axis, row, title)]
            parts += _scores(axis, row, scored, scope)
            bottom = row.bottom + GAP
    if axis.document["drift"]:
        drawn, bottom = _alarms(axis, bottom)
        parts += drawn
    else:
        bottom -= GAP
    parts += axis.time(bottom)
    return svg(axis, bottom + 30, parts, "Drift scores against their thresholds, and alarms")


def _score_row(scored: Sequence[Document], scope: str, top: float) -> _Row:
    values = [v for one in scored for v in one["series"][scope] if v is not None]
    bounds = [one["thresholds"].get(scope, 0.0) for one in scored]
    low = min(0.0, *values) if scope != "sensor" else 0.0
    return _Row(top, TALL, low, _round_up(max(*values, *(1.25 * bound for bound in bounds), 0.01)))


def _scores(axis: Axis, row: _Row, scored: Sequence[Document], scope: str) -> Iterator[str]:
    times = axis.document["times"]
    yield from _levels(axis, row, [(v, f"{v:g}") for v in (0.0, row.high / 2, row.high)])
    newest = scored[-1]["thresholds"].get(scope)
    for one in scored:
        values, style = one["series"][scope], axis.style(one["version"])
        within = [at for at, value in zip(times, values, strict=True) if value is not None]
        bound = one["thresholds"].get(scope)
        if bound is not None:
            across = [(axis.x(at), row.y(bound)) for at in (within[0], within[-1])]
            yield polyline(across, "threshold")
            if bound != newest:
                yield text(across[0][0] + 4, across[0][1] - 4, f"{bound:.2g}", "bound-name")
        for stretch in stretches(axis, times, values, row.y):
            yield polyline(stretch, f"line {style}")
    if newest is not None:
        end = axis.right, row.y(newest)
        yield from _name_of_bound(axis, end, f"threshold {newest:.2g}")
    for alarm in axis.document["drift"]:
        if _row_of(alarm) == scope:
            yield _alarm_mark(axis, row, alarm)


def _row_of(alarm: Document) -> str:
    return "sensor" if alarm["cause"] == "sensor_fault" else str(alarm["scope"])


def _alarm_mark(axis: Axis, row: _Row, alarm: Document) -> str:
    x, y = axis.x(alarm["raised_s"]), row.y(alarm["score"])
    return (
        f'<circle class="ring alarm" cx="{x}" cy="{y}" r="5">'
        f"<title>{escape(alarm['explanation'])}</title></circle>"
    )


def _alarms(axis: Axis, top: float) -> tuple[list[str], float]:
    """One bar an alarm, from when it was raised until it was cleared."""
    bottom = top + 8 + len(axis.document["drift"]) * LANE
    parts = list(axis.faults(top, bottom))
    for number, alarm in enumerate(axis.document["drift"]):
        y = top + 4 + number * LANE
        ends_s = alarm["cleared_s"] if alarm["cleared_s"] is not None else axis.ends_s
        of = "fleet" if alarm["scope"] == "fleet" else alarm["key"]
        sensor = f" ({alarm['sensor']})" if alarm["sensor"] else ""
        name = f"{alarm['cause'].replace('_', ' ')}{sensor}"
        parts.append(text(axis.left - 10, y + 10, cut(axis, of), "tick end"))
        parts.append(rect(axis, alarm["raised_s"], ends_s, y, LANE - 8, "fill alarm", 4.0, name))
        x, style = axis.x(alarm["raised_s"]) - 6, "lane end"
        if x - len(name) * CHAR < axis.left:
            x, style = axis.x(ends_s) + 6, "lane"
        parts.append(text(x, y + 10, name, style))
    return parts, bottom


# ---- pieces -------------------------------------------------------------------------------------


def _titled(axis: Axis, row: _Row, title: str) -> list[str]:
    return [text(axis.left, row.top - 7, title, "row-title")]


def _levels(axis: Axis, row: _Row, named: Iterable[tuple[float, str]]) -> Iterator[str]:
    for level, name in named:
        yield line(axis.left, row.y(level), axis.right, row.y(level), "grid")
        yield text(axis.left - 10, row.y(level) + 4, name, "tick end")


def _band(above: Points, below: Points, style: str) -> str:
    listed = " ".join(f"{x},{y}" for x, y in [*above, *reversed(below)])
    return f'<polygon class="band {style}" points="{listed}"/>'


def _bound(axis: Axis, points: Points, name: str, kind: str = "") -> Iterator[str]:
    yield polyline(points, f"threshold {kind}".strip())
    yield from _name_of_bound(axis, points[-1], name, kind)


def _name_of_bound(
    axis: Axis, end: tuple[float, float], name: str, kind: str = ""
) -> Iterator[str]:
    """Beside the plot, or in it above the line where there is no room."""
    style = f"bound-name {kind}".strip()
    if axis.shape.names:
        yield text(axis.right + 8, end[1] + 4, name, style)
    else:
        yield text(end[0] - 8, end[1] - 4, name, f"{style} end")


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def _round_up(value: float) -> float:
    """To 1, 2, 3, 4, 6 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((n * power for n in (1, 2, 3, 4, 6, 8) if n * power >= value), 10 * power)
