"""`report.html` of a virtual world: one page that needs no network and no script.

Invariants: rendered from the report's document alone; text from the scenario is escaped; a
sentence says first whether what was expected came.
"""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

from edgeloop_simulators.virtual.report import charts
from edgeloop_simulators.virtual.report.chart_parts import Axis, both
from edgeloop_simulators.virtual.report.evidence_page import drift_content, gates_content, is_scored
from edgeloop_simulators.virtual.run.expectations import duration

BYTES_SHOWN_MAX: Final = 24

Document = Mapping[str, Any]


def render(document: Document) -> str:
    """The whole page."""
    axis = Axis(document)
    page = (files("edgeloop_simulators") / "report_page.html").read_text(encoding="utf-8")
    body = "\n".join(_sections(document, axis))
    return (
        page.replace("{{title}}", escape(document["title"]))
        .replace("{{lead}}", escape(document["shows"]))
        .replace("{{body}}", f'<div class="virtual">{body}</div>')
    )


def verdict(document: Document) -> str:
    """One sentence, plain text."""
    checks = document["expectations"]
    failed = [check for check in checks if not check["passed"]]
    if not failed:
        return f"As expected: all {len(checks)} expectations are met."
    first = failed[0]
    more = f" ({len(failed)} of {len(checks)} expectations are not met)"
    return (
        f"Not as expected: {first['what']}: expected {first['expected']}, "
        f"came {first['came']}{more}."
    )


def _sections(document: Document, axis: Axis) -> Iterable[str]:
    yield _banner(document)
    yield _tiles(document)
    yield _section("What was expected, and what came", "", _expectations(document))
    if document["faults"] or document["world"] or document["controller_down"]:
        yield _section(
            "What went wrong, and when",
            "Faults as they were injected; they lie as bands behind all charts below.",
            _both(document, charts.fault_chart),
        )
    yield _section(
        "Versions over the fleet",
        "How many devices run which version, new ones from their first answer on trial. "
        f"{_keys(_key('connected', 'devices that are connected'), _legend(axis))}",
        _both(document, charts.fleet_chart),
    )
    yield _section(
        "Exposure",
        "The share of a rollout's devices that ever ran its version. A tick: done; a cross: halted "
        "by a gate.",
        _both(document, charts.exposure_chart) + _rollouts(document),
    )
    yield _section(
        "What the gates saw",
        "Each rollout over its own time: what was measured, against what it must keep. "
        f"{_gate_legend(axis)}",
        gates_content(document),
    )
    yield _section(
        "Accuracy against ground truth",
        "Share of right answers, rolling over two telemetry windows; known to the simulation "
        f"alone. {_keys(_key('whole', 'all devices'), _legend(axis))}",
        _both(document, charts.accuracy_chart),
    )
    yield _section(
        "Drift",
        "How far what devices see lies from what it is compared with, by sketches alone. An alarm "
        "of the fleet also needs half of its devices above their own threshold, and every alarm a "
        "finding that lasts. "
        f"{_drift_legend(axis) if is_scored(document) else ''}",
        drift_content(document),
    )
    if any("spans" in device for device in document["devices"]):
        yield _section("Devices", _device_legend(axis), _both(document, charts.strip_chart))
    yield _section("Bytes a device", _bytes_text(document), _bytes(document))
    yield _section("Events", "", _events(document))
    yield _section("Versions", "", _versions(document))
    yield _section("The world", "", _world(document))


def _both(document: Document, chart: Callable[[Axis], str]) -> str:
    return both(lambda shape: chart(Axis(document, shape)))


def _banner(document: Document) -> str:
    passed = document["passed"]
    mark, style = ("✓", "passed") if passed else ("✗", "failed")
    return f'<p class="verdict {style}"><b>{mark}</b> {escape(verdict(document))}</p>'


TILES: Final = (
    ("devices", "devices"),
    ("accuracy", "of answers right"),
    ("devices that ran a bad version", "of the fleet ever ran a bad version"),
    ("rollbacks of a good version", "rollbacks of a good version"),
    ("wedged devices", "wedged devices"),
    ("drift alarms", "drift alarms"),
    ("telemetry records lost", "records lost"),
    ("telemetry records stored twice", "records stored twice"),
    ("sent up a device and day", "sent up a device and day"),
)


def _tiles(document: Document) -> str:
    figures = document["figures"]
    tiles = [(duration(document["ends_s"]), "of virtual time")]
    tiles += [(shown(figures[name]), label) for name, label in TILES]
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def shown(figure: Mapping[str, Any]) -> str:
    """A figure with its unit, in words."""
    value, unit = figure["value"], figure["unit"]
    if value is None:
        return "never" if unit == "seconds" else "-"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "seconds":
        return duration(value)
    if unit == "thresholds":
        return f"{value:.2f} times its threshold"
    if unit == "bytes":
        return f"{value / 1000:.1f} kB"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)


def _section(title: str, text: str, content: str) -> str:
    lead = f"<p>{text}</p>" if text else ""
    return f'<section><h2>{escape(title)}</h2>{lead}<div class="wide">{content}</div></section>'


def _expectations(document: Document) -> str:
    rows = "".join(
        f'<tr class="{"met" if check["passed"] else "unmet"}">'
        f"<td>{'✓' if check['passed'] else '✗'}</td><td>{escape(check['what'])}</td>"
        f"<td>{escape(check['expected'])}</td><td>{escape(check['came'])}</td></tr>"
        for check in document["expectations"]
    )
    head = "<tr><th></th><th></th><th>expected</th><th>came</th></tr>"
    return f'<table class="checks"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _legend(axis: Axis) -> str:
    return "".join(
        _key(axis.style(version["name"]), axis.shown(version["name"]))
        for version in axis.document["versions"]
    )


def _gate_legend(axis: Axis) -> str:
    return _keys(
        _legend(axis),
        _key("dashed", "bound"),
        _key("dashed goal", "examples needed"),
        _key("pale", "confidence bounds; devices offered"),
    )


def _drift_legend(axis: Axis) -> str:
    return _keys(
        _legend(axis), _key("dashed", "threshold"), _key("circle alarm", "an alarm is raised")
    )


def _device_legend(axis: Axis) -> str:
    return (
        f"One row a device. {_legend(axis)}{_key('pale', 'on trial')}"
        f"{_key('hollow', 'not connected')}{_key('off', 'off')}"
        '<span class="named">&ensp;✗ rolled back by the device</span>'
    )


def _keys(*keys: str) -> str:
    return f'<span class="legend">{"".join(keys)}</span>'


def _key(style: str, name: str) -> str:
    return f'<span class="named"><span class="key {style}"></span>{escape(name)}</span> '


def _rollouts(document: Document) -> str:
    rows = "".join(
        f"<tr><td>{escape(rollout['version'])}</td><td>{_waves(rollout)}</td>"
        f'<td class="number">{duration(rollout["started_s"])}</td>'
        f"<td>{_after(rollout)}</td>"
        f'<td class="number">{len(rollout["exposed"])} of {rollout["matching"]}</td>'
        f'<td class="number">{len(rollout["rolled_back"])}</td>'
        f"<td><b>{escape(rollout['status'])}</b>: {escape(rollout['verdict'])}</td></tr>"
        for rollout in document["rollouts"]
    )
    head = (
        '<tr><th>version</th><th>waves</th><th class="number">started</th><th>ended after</th>'
        '<th class="number">ever ran it</th><th class="number">rolled back</th>'
        "<th>verdict</th></tr>"
    )
    return f'<table class="rollouts"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _waves(rollout: Mapping[str, Any]) -> str:
    return ",&nbsp;".join(map(escape, rollout["waves"])) or "by a policy"


def _after(rollout: Mapping[str, Any]) -> str:
    ended_s = rollout["ended_s"]
    return "goes on" if ended_s is None else duration(ended_s - rollout["started_s"])


def _bytes_text(document: Document) -> str:
    count = len(document["devices"])
    of = f"the {BYTES_SHOWN_MAX} that sent most, of {count}" if count > BYTES_SHOWN_MAX else "all"
    return (
        f"MQTT topics and payloads sent up, and all that came down, artifacts too; {of}. "
        f"{_key('v1', 'up')}{_key('v2', 'down')}"
    )


def _bytes(document: Document) -> str:
    devices = sorted(document["devices"], key=lambda one: (-one["bytes_up"], one["id"]))
    most = max((max(d["bytes_up"], d["bytes_down"]) for d in devices), default=1) or 1
    rows = "".join(
        f"<tr><td>{escape(device['id'])}</td>"
        f"<td>{_bar(device['bytes_up'], most, 'v1')}{_bar(device['bytes_down'], most, 'v2')}</td>"
        f'<td class="number">{device["bytes_up"] / 1000:.1f} kB up</td>'
        f'<td class="number">{device["bytes_down"] / 1000:.1f} kB down</td></tr>'
        for device in devices[:BYTES_SHOWN_MAX]
    )
    return f'<table class="bytes"><tbody>{rows}</tbody></table>'


def _bar(value: int, most: int, style: str) -> str:
    return f'<span class="bar {style}" style="width:{max(value / most * 100, 0.3):.1f}%"></span>'


_TONES: Final = {
    "drift.raised": "alarm",
    "device.rolled_back": "bad",
    "rollout.halted": "bad",
    "rollout.aborted": "bad",
    "rollout.done": "good",
    "drift.cleared": "good",
    "version.published": "good",
    "controller.died": "world",
    "controller.started": "world",
}


def _events(document: Document) -> str:
    rows = "".join(
        f'<tr><td class="number">{duration(event["at_s"])}</td>'
        f'<td><span class="dot {_TONES.get(event["kind"], "work")}">'
        f"{escape(event['kind'].replace('.', ' ').replace('_', ' '))}</span></td>"
        f"<td>{escape(event['subject'])}<small>{escape(event['detail'])}</small></td></tr>"
        for event in document["events"]
    )
    return f'<table class="events"><tbody>{rows}</tbody></table>'


def _versions(document: Document) -> str:
    rows = "".join(
        f"<tr><td>{escape(version['name'])}</td><td>{_badness(version)}</td>"
        f'<td class="number">{shown({"value": version["answers"], "unit": "count"})}</td>'
        f'<td class="number">{shown({"value": version["accuracy"], "unit": "share"})}</td>'
        f'<td class="number">{version["exposed"]}</td>'
        f'<td class="number">{version["rolled_back"]}</td>'
        f'<td class="number">{version["running_at_the_end"]}</td></tr>'
        for version in document["versions"]
    )
    head = "".join(
        f'<th class="number">{name}</th>'
        for name in ("answers", "accuracy", "devices ever", "rolled back", "running at the end")
    )
    head = f"<tr><th>version</th><th></th>{head}</tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _badness(version: Mapping[str, Any]) -> str:
    if not version["bad"]:
        return "good"
    on = ", ".join(version["bad_on"])
    return f"bad on {escape(on)}" if on else "bad"


def _world(document: Document) -> str:
    sites = "".join(
        f"<tr><td>site {escape(site['name'])}</td><td>{site['devices']} of class "
        f"{escape(site['class'])} ({escape(site['architecture'])}), "
        f"UTC{site['utc_offset_h']:+g} h</td></tr>"
        for site in document["sites"]
    )
    rest = (
        f"<tr><td>seed</td><td>{document['seed']}</td></tr>"
        f"<tr><td>trace</td><td><code>{escape(document['trace_hash'])}</code></td></tr>"
        f"<tr><td>events run</td><td>{document['events_run']}</td></tr>"
    )
    return f'<table class="figures"><tbody>{sites}{rest}</tbody></table>'
