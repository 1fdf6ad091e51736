"""`report.html`: a run on one page that needs no network.

Invariants: every figure comes from the summary, every event from the timeline; text from the run
is escaped; it reads well in light and in dark, and on paper.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from edgeloop_simulators import charts, timeline
from edgeloop_simulators.record import Record
from edgeloop_simulators.timeline import TimelineEvent

DID_NOT_HAPPEN: Final = "did not happen"

TILES: Final = (
    ("accuracy_v1_before", "accuracy of v1, before", "accuracy"),
    ("accuracy_v1_after_drift", "of v1, after the change", "accuracy"),
    ("accuracy_v2", "of v2, after the change", "accuracy"),
    ("seconds_to_detect_drift", "until drift was noticed", "seconds"),
    ("seconds_to_recover", "until accuracy was back", "seconds"),
    ("false_drift_alarms", "false drift alarms", "count"),
    ("bad_versions_exposed_fraction", "of the fleet ever ran a bad version", "share"),
    ("telemetry_lost", "records lost", "count"),
    ("telemetry_duplicated", "records stored twice", "count"),
    ("bytes_up_per_device", "sent up by a device", "bytes"),
)


def render(record: Record, summary: Mapping[str, Any]) -> str:
    """The whole page. `summary` as `summary.summarize` gives it."""
    started = record.first("run.started")
    title = started.text if started else "Edgeloop run"
    phases = started.data.get("phases", ["before", "after"]) if started else ["before", "after"]
    events = timeline.events_of(record)
    axis = charts.Axis(timeline.length_of(record))
    changed = timeline.change_s(record)
    series = timeline.accuracy_series(record)
    scores = timeline.score_series(record)
    broken = {
        mark.data["device"]: mark.at - timeline.start_of(record)
        for mark in record.marks
        if mark.kind == "sensor.broken"
    }
    sections = [
        _tiles(summary),
        _section(
            "Accuracy",
            "Share of right answers over the last 8 seconds, for each version, of windows that it "
            "was not trained on. Numbers are the events below.",
            charts.accuracy_chart(axis, series, events, (phases[0], phases[1]), changed),
        ),
        _section(
            "Versions on the fleet",
            "Which version answered on each device. " + _legend(record),
            charts.strip_chart(axis, timeline.strips(record), broken),
        ),
    ]
    if scores:
        sections.append(
            _section(
                "Drift",
                "The fleet's drift score, in thresholds of the version that was scored; from the "
                "devices' sketches alone, without labels.",
                charts.score_chart(axis, scores, changed),
            )
        )
    sections += [
        _section("Events", "", _events(events)),
        _section("Answers by version", "", _answers(summary["answers_by_version"])),
        _section("All figures", "", _figures(summary)),
    ]
    page = (files("edgeloop_simulators") / "report_page.html").read_text(encoding="utf-8")
    lead = f"{len(record.devices)} devices, {len(record.answers)} answers, " + (
        f"{summary['run_seconds']:.0f} seconds."
    )
    return (
        page.replace("{{title}}", escape(title))
        .replace("{{lead}}", escape(lead))
        .replace("{{body}}", "\n".join(sections))
    )


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{_value(summary[name], unit)}</b><span>{escape(label)}</span></div>'
        for name, label, unit in TILES
    )
    return f'<div class="tiles">{tiles}</div>'


def _value(value: Any, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "accuracy":
        return f"{value:.2f}"
    if unit == "seconds":
        return f"{value:.0f} s"
    if unit == "bytes":
        return f"{value / 1000:.0f} kB"
    if unit == "share":
        return f"{value:.0%}"
    return str(value)


def _section(title: str, text: str, content: str) -> str:
    lead = f"<p>{text}</p>" if text else ""
    return f'<section><h2>{escape(title)}</h2>{lead}<div class="wide">{content}</div></section>'


def _legend(record: Record) -> str:
    bad = timeline.bad_names(record)
    return " ".join(
        f'<span class="named"><span class="key {charts.style_of(name)}"></span>{escape(name)}'
        + (" (bad)</span>" if name in bad else "</span>")
        for name in timeline.version_names(record).values()
    )


def _events(events: Sequence[TimelineEvent]) -> str:
    rows = [
        f'<tr><td><span class="dot {event.tone}">{number}</span></td>'
        f'<td class="number">{event.at_s:.0f} s</td><td>{escape(event.text)}'
        + (f"<small>{escape(event.detail)}</small>" if event.detail else "")
        + "</td></tr>"
        for number, event in enumerate(events, start=1)
    ]
    return f'<table class="events"><tbody>{"".join(rows)}</tbody></table>'


ANSWER_COLUMNS: Final = (
    ("answers", "answers"),
    ("counted", "counted"),
    ("left_out_broken_sensor", "broken sensor"),
    ("left_out_trained_on", "trained on"),
    ("errors", "errors"),
    ("accuracy_before", "accuracy before"),
    ("accuracy_after", "accuracy after"),
)


def _answers(by_version: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f'<th class="number">{escape(title)}</th>' for _, title in ANSWER_COLUMNS)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="number">{_plain(tally[key])}</td>' for key, _ in ANSWER_COLUMNS)
        + "</tr>"
        for name, tally in by_version.items()
    )
    return f"<table><thead><tr><th>version</th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _figures(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{cell}</td></tr>"
        for name, cell in _cells(summary.items())
    )
    return f'<table class="figures"><tbody>{rows}</tbody></table>'


def _cells(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    for name, value in items:
        if name == "answers_by_version":
            continue
        if isinstance(value, Mapping):
            yield name, "<br>".join(f"{escape(str(k))}: {_plain(v)}" for k, v in value.items())
        else:
            yield name, DID_NOT_HAPPEN if value is None else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        if "manifest_digest" in value:
            return escape(f"{value['name']}@{value['version']}")
        return ", ".join(f"{escape(str(k))} {_plain(v)}" for k, v in value.items())
    return escape(f"{round(value, 3):g}" if isinstance(value, float) else str(value))
