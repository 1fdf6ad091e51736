"""Charts as SVG text, made by hand: no script, no font, no network.

Invariants: all charts share one time axis, so what stands above each other happened at the same
time; colours are CSS classes, so that the page decides on light and dark; labels never overlap.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Final

from edgeloop_simulators.timeline import Series, Strip, TimelineEvent

WIDTH: Final = 1080
LEFT: Final = 96
RIGHT: Final = 64
BADGE: Final = 9
LANE: Final = 22
ROW: Final = 22
TICKS_MAX: Final = 10

YOf = Callable[[float], float]


class Axis:
    """Seconds to pixels."""

    def __init__(self, length_s: float) -> None:
        self.length_s = max(length_s, 1.0)

    def x(self, at_s: float) -> float:
        share = min(max(at_s, 0.0), self.length_s) / self.length_s
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self) -> list[float]:
        steps = (5, 10, 15, 20, 30, 60, 120, 300, 600)
        step = next((s for s in steps if self.length_s / s <= TICKS_MAX), 1200)
        return [float(t) for t in range(0, int(self.length_s) + 1, step)]


def lanes(positions: Sequence[float], distance: float) -> list[int]:
    """The lowest lane for each position in which it is `distance` away from those before it."""
    ends: list[float] = []
    chosen = []
    for position in positions:
        lane = next((i for i, end in enumerate(ends) if position - end >= distance), len(ends))
        if lane == len(ends):
            ends.append(position)
        ends[lane] = position
        chosen.append(lane)
    return chosen


def accuracy_chart(
    axis: Axis,
    series: Sequence[Series],
    events: Sequence[TimelineEvent],
    phases: tuple[str, str],
    changed_s: float | None,
) -> str:
    """Rolling accuracy of each version; the events as numbered badges in lanes above."""
    placed = lanes([axis.x(event.at_s) for event in events], 2 * BADGE + 3)
    top = 14 + LANE * (max(placed, default=0) + 1) + 22
    height = 300
    bottom = top + height
    parts = [] if changed_s is None else [_after_band(axis, changed_s, top, bottom)]
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - level * height
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(text(LEFT - 10, y + 4, f"{level:.2f}", "tick end"))
    for number, (event, lane) in enumerate(zip(events, placed, strict=True), start=1):
        parts += _badge(axis.x(event.at_s), 14 + LANE * lane, bottom, number, event)
    parts += _phase_names(axis, phases, changed_s, top - 8)
    parts += _lines(axis, series, lambda value: bottom - value * height)
    parts += _line_names(axis, series, lambda value: bottom - value * height, top, bottom)
    parts += _time_axis(axis, bottom)
    return svg(bottom + 34, parts, "Rolling accuracy of each version over time")


def score_chart(axis: Axis, series: Sequence[Series], changed_s: float | None) -> str:
    """The fleet's drift score in thresholds; 1 is where an alarm is due."""
    top, height = 16, 150
    bottom = top + height
    peak = max((v for s in series for stretch in s.stretches for _, v in stretch), default=1.0)
    highest = max(2.0, float(int(peak) + 1))

    def y_of(value: float) -> float:
        return bottom - value / highest * height

    parts = []
    for level in (0.0, 1.0, highest):
        style = "threshold" if level == 1.0 else "grid"
        parts.append(line(LEFT, y_of(level), WIDTH - RIGHT, y_of(level), style))
        parts.append(text(LEFT - 10, y_of(level) + 4, f"{level:g}", "tick end"))
    parts.append(text(WIDTH - RIGHT, y_of(1.0) - 6, "threshold", "tick end"))
    if changed_s is not None:
        parts.append(line(axis.x(changed_s), top, axis.x(changed_s), bottom, "event world"))
    parts += _lines(axis, series, y_of)
    parts += _line_names(axis, series, y_of, top, bottom)
    parts += _time_axis(axis, bottom)
    return svg(bottom + 34, parts, "Drift score of the fleet over time")


def strip_chart(axis: Axis, strips: Sequence[Strip], broken: dict[str, float]) -> str:
    """One row a device, coloured by the version that answers; `broken`: when its sensor broke."""
    top = 10
    parts = []
    for row, strip in enumerate(strips):
        y = top + row * ROW
        parts.append(text(LEFT - 10, y + 13, strip.device, "tick end"))
        for begin, end, name in strip.spans:
            width = max(axis.x(end) - axis.x(begin), 1.0)
            title = f"<title>{escape(strip.device)}: {escape(name)}</title>"
            parts.append(
                f'<rect class="fill {style_of(name)}" x="{axis.x(begin)}" y="{y}" '
                f'width="{width:.1f}" height="{ROW - 6}">{title}</rect>'
            )
        if strip.device in broken:
            x = axis.x(broken[strip.device])
            parts.append(line(x, y - 1, x, y + ROW - 5, "broken"))
            parts.append(text(WIDTH - RIGHT + 8, y + 13, "broken", "tick"))
    bottom = top + len(strips) * ROW
    parts += _time_axis(axis, bottom)
    return svg(bottom + 34, parts, "The version that each device runs over time")


def style_of(version: str) -> str:
    """The CSS class of a version: `v1` … `v6`, then round again."""
    digits = "".join(c for c in version if c.isdigit()) or "1"
    return f"v{(int(digits) - 1) % 6 + 1}"


def _after_band(axis: Axis, changed_s: float, top: float, bottom: float) -> str:
    x, end = axis.x(changed_s), axis.x(axis.length_s)
    return f'<rect class="after" x="{x}" y="{top}" width="{end - x:.1f}" height="{bottom - top}"/>'


def _phase_names(
    axis: Axis, phases: tuple[str, str], changed_s: float | None, y: float
) -> Iterator[str]:
    until = axis.length_s if changed_s is None else changed_s
    yield text((axis.x(0) + axis.x(until)) / 2, y, phases[0], "phase middle")
    if changed_s is not None:
        middle = (axis.x(changed_s) + axis.x(axis.length_s)) / 2
        yield text(middle, y, phases[1], "phase middle")


def _badge(x: float, y: float, bottom: float, number: int, event: TimelineEvent) -> Iterator[str]:
    yield line(x, y + BADGE, x, bottom, f"event {event.tone}")
    yield (
        f'<g class="badge {event.tone}"><title>{escape(event.text)}</title>'
        f'<circle cx="{x}" cy="{y}" r="{BADGE}"/>'
        f'<text x="{x}" y="{y + 3.5}" text-anchor="middle">{number}</text></g>'
    )


def _lines(axis: Axis, series: Iterable[Series], y_of: YOf) -> Iterator[str]:
    for one in series:
        for stretch in one.stretches:
            points = " ".join(f"{axis.x(at)},{y_of(value):.1f}" for at, value in stretch)
            yield f'<polyline class="line {style_of(one.name)}" points="{points}"/>'


def _line_names(
    axis: Axis, series: Sequence[Series], y_of: YOf, top: float, bottom: float
) -> Iterator[str]:
    """Each line's name after its last point, pushed apart where two would touch."""
    ends = []
    for one in series:
        if one.stretches:
            at, value = one.stretches[-1][-1]
            ends.append((axis.x(at) + 6, y_of(value) + 4, one.name))
    taken: list[tuple[float, float]] = []
    for x, y, name in sorted(ends, key=lambda end: end[1]):
        while any(abs(x - tx) < 30 and abs(y - ty) < 13 for tx, ty in taken) and y < bottom:
            y += 1
        y = min(max(y, top + 10), bottom - 3)
        taken.append((x, y))
        yield text(x, y, name, f"name {style_of(name)}")


def _time_axis(axis: Axis, bottom: float) -> Iterator[str]:
    yield line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis")
    for tick in axis.ticks():
        yield line(axis.x(tick), bottom, axis.x(tick), bottom + 5, "axis")
        yield text(axis.x(tick), bottom + 19, f"{tick:g} s", "tick middle")


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def svg(height: float, parts: Iterable[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
