"""What the charts of a virtual world's report are made of: the time axis with its faults, and SVG
pieces on it.

Invariants: a colour is a CSS class, so that the page decides on light and dark.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final

from edgeloop_simulators.charts import line, text
from edgeloop_simulators.virtual.run.expectations import duration

LANE: Final = 20
CHAR: Final = 6.4
"""Pixels a character takes at 12 px, about."""
STYLES: Final = 6

Document = Mapping[str, Any]
YOf = Callable[[float], float]
_STEPS_S: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * n for n in (1, 2, 5, 10, 15, 20, 30)),
    *(3600 * n for n in (1, 2, 3, 4, 6, 8, 12)),
    *(86_400 * n for n in (1, 2, 3, 5, 7, 10, 15, 30, 60, 90, 180, 365)),
)


@dataclass(frozen=True)
class Shape:
    """Pixels: the width of all, and what is left beside the plot. `names`: whether there is room
    for the names of lines at their right end."""

    width: int
    left: int
    right: int
    ticks_max: int
    names: bool


DESKTOP: Final = Shape(width=1080, left=124, right=104, ticks_max=9, names=True)
PHONE: Final = Shape(width=400, left=76, right=14, ticks_max=4, names=False)


class Axis:
    """Virtual seconds to pixels, with the report's faults and colours at hand.

    `between`: a part of the world's time; its ticks are named by what passed since `since_s`.
    """

    def __init__(
        self,
        document: Document,
        shape: Shape = DESKTOP,
        between: tuple[float, float] | None = None,
        since_s: float = 0.0,
    ) -> None:
        self.document = document
        self.shape = shape
        self.left = shape.left
        self.right = shape.width - shape.right
        whole: tuple[float, float] = (0.0, max(document["ends_s"], 1.0))
        self.begins_s, self.ends_s = between or whole
        self._since_s = since_s
        names = [version["name"] for version in document["versions"]]
        self._styles = {name: f"v{number % STYLES + 1}" for number, name in enumerate(names)}
        self.bad = {version["name"] for version in document["versions"] if version["bad"]}

    def x(self, at_s: float) -> float:
        since_s = min(max(at_s, self.begins_s), self.ends_s) - self.begins_s
        share = since_s / (self.ends_s - self.begins_s)
        return round(self.left + share * (self.right - self.left), 1)

    def style(self, version: str) -> str:
        return self._styles.get(version, "none")

    def shown(self, version: str) -> str:
        return f"{version} (bad)" if version in self.bad else version

    def time(self, bottom: float) -> Iterator[str]:
        """The line, its ticks and their names."""
        length_s, lasts_s = self.ends_s - self.begins_s, self.ends_s - self._since_s
        step = next((s for s in _STEPS_S if length_s / s <= self.shape.ticks_max), _STEPS_S[-1])
        yield line(self.left, bottom, self.right, bottom, "axis")
        for tick in range(0, int(lasts_s) + 1, step):
            x = self.x(self._since_s + tick)
            name = f"+{duration(tick)}" if tick and self._since_s else duration(tick)
            yield line(x, bottom, x, bottom + 5, "axis")
            yield text(x, bottom + 19, name, "tick middle")

    def faults(self, top: float, bottom: float) -> Iterator[str]:
        """Bands over the height of a chart."""
        faults = [(f["from_s"], f["to_s"], f["text"]) for f in self.document["faults"]]
        down = [
            (from_s, to_s, "controller down") for from_s, to_s in self.document["controller_down"]
        ]
        for from_s, to_s, name in (*faults, *down):
            if from_s <= self.ends_s and to_s >= self.begins_s:
                yield rect(self, from_s, to_s, top, bottom - top, "fault", 1.0, name)
        for change in self.document["world"]:
            if self.begins_s <= change["at_s"] <= self.ends_s:
                x = self.x(change["at_s"])
                yield line(x, top, x, bottom, "event world")


def both(draw: Callable[[Shape], str]) -> str:
    """For a wide window and for a narrow one; the page shows the one that fits."""
    wide, narrow = draw(DESKTOP), draw(PHONE)
    return f'<div class="desktop">{wide}</div><div class="phone">{narrow}</div>'


def svg(axis: Axis, height: float, parts: Iterable[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {axis.shape.width} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def steps(
    axis: Axis, times: Sequence[float], counts: Sequence[float], y_of: YOf
) -> list[tuple[float, float]]:
    points = [(axis.x(times[0]), y_of(counts[0]))]
    for (_, before), (at_s, after) in pairwise(zip(times, counts, strict=True)):
        if after != before:
            points += [(axis.x(at_s), y_of(before)), (axis.x(at_s), y_of(after))]
    return [*points, (axis.x(times[-1]), y_of(counts[-1]))]


def polyline(points: Sequence[tuple[float, float]], style: str) -> str:
    return f'<polyline class="{style}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def grid(axis: Axis, levels: Sequence[tuple[float, str]], y_of: YOf) -> Iterator[str]:
    for level, name in levels:
        yield line(axis.left, y_of(level), axis.right, y_of(level), "grid")
        yield text(axis.left - 10, y_of(level) + 4, name, "tick end")


def names_at_end(
    axis: Axis, names: Sequence[tuple[float, str, str]], top: float, bottom: float
) -> Iterator[str]:
    """At the right end, pushed apart where two would touch."""
    lowest = top - 4
    if not axis.shape.names:
        return
    for y, name, style in sorted(names):
        lowest = max(y + 4, lowest + 14)
        yield text(axis.right + 8, min(lowest, bottom + 8), name, f"name {style}")


def rect(
    axis: Axis,
    from_s: float,
    to_s: float,
    y: float,
    height: float,
    style: str,
    width_min: float,
    title: str = "",
) -> str:
    x = axis.x(from_s)
    width = max(axis.x(to_s) - x, width_min)
    inner = f"<title>{escape(title)}</title>" if title else ""
    place = f'x="{x}" y="{y}" width="{width:.1f}" height="{height}"'
    return f'<rect class="{style}" {place}>{inner}</rect>'


def cut(axis: Axis, name: str) -> str:
    most = int((axis.left - 14) / CHAR)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def stretches(
    axis: Axis, times: Sequence[float], values: Sequence[float | None], y_of: YOf
) -> Iterator[list[tuple[float, float]]]:
    stretch: list[tuple[float, float]] = []
    for at_s, value in zip(times, values, strict=True):
        if value is None:
            if stretch:
                yield stretch
            stretch = []
        else:
            stretch.append((axis.x(at_s), y_of(value)))
    if stretch:
        yield stretch
