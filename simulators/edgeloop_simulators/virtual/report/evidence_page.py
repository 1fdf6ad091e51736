"""What the gates saw and how far the world drifted, as parts of the page: charts, and the words
that belong to them.

Invariants: rendered from the report's document alone; what is not charted is said to be.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from edgeloop_simulators.virtual.report.chart_parts import Axis, both
from edgeloop_simulators.virtual.report.evidence_charts import drift_chart, gate_axis, gate_chart
from edgeloop_simulators.virtual.report.evidence_document import halting_gate
from edgeloop_simulators.virtual.run.expectations import duration

ROLLOUTS_CHARTED_MAX: Final = 8
"""The last ones; the document holds all."""

Document = Mapping[str, Any]


def gates_content(document: Document) -> str:
    rollouts = document["rollouts"]
    if not rollouts:
        return '<p class="empty">No rollout was started.</p>'
    left_out = len(rollouts) - ROLLOUTS_CHARTED_MAX
    told = (
        ""
        if left_out <= 0
        else (
            f'<p class="empty">The last {ROLLOUTS_CHARTED_MAX} of {len(rollouts)} rollouts; '
            "report.json holds all.</p>"
        )
    )
    return told + "".join(
        _rollout(document, rollout) for rollout in rollouts[-ROLLOUTS_CHARTED_MAX:]
    )


def _rollout(document: Document, rollout: Document) -> str:
    gates = rollout["gates"]
    chart = '<p class="empty">No gate was asked: the controller never came to it.</p>'
    if gates["points"]:
        chart = both(lambda shape: gate_chart(gate_axis(document, rollout, shape), rollout))
    return (
        f'<article class="rollout"><h3>{escape(_heading(document, rollout))}</h3>'
        f"<p>{escape(_verdict(rollout))}</p>{chart}{_said(gates)}</article>"
    )


def _heading(document: Document, rollout: Document) -> str:
    axis = Axis(document)
    replaces = rollout["gates"]["replaces"]
    over = f" over {', '.join(replaces)}" if replaces else ", the first version here"
    return f"{axis.shown(rollout['version'])}{over}"


def _verdict(rollout: Document) -> str:
    """Its words, where no gate says them below."""
    started, status = duration(rollout["started_s"]), rollout["status"]
    words = f": {rollout['verdict']}" if rollout["verdict"] else ""
    if rollout["ended_s"] is None:
        return f"Started at {started}; {status}{words}."
    took = duration(rollout["ended_s"] - rollout["started_s"])
    told = f"Started at {started}; {status} after {took}"
    gate = halting_gate(rollout["gates"], status)
    if any(one["halted"] for one in rollout["gates"]["said"]):
        return f"{told} by the {gate} gate."
    return f"{told}{words}."


def _said(gates: Document) -> str:
    """Each gate's last words; a gate that had nothing to look at kept nothing."""
    rows = ""
    for one in gates["said"]:
        mark, style = _mark(one)
        words = f"<b>{mark} {escape(one['gate'])}</b> {escape(one['sentence'])}"
        rows += f'<li class="{style}">{words}</li>'
    return f'<ul class="said">{rows}</ul>' if rows else ""


def _mark(said: Document) -> tuple[str, str]:
    if said["halted"]:
        return "✗", "unmet"
    return ("✓", "met") if said["looked"] else ("·", "work")


def is_scored(document: Document) -> bool:
    return any(one["series"] for one in document["drift_scores"])


def drift_content(document: Document) -> str:
    if not is_scored(document):
        return (
            '<p class="empty">Nothing was scored: the drift watch is off in this world, no version '
            "has a baseline, or too few examples came.</p>"
        )
    chart = both(lambda shape: drift_chart(Axis(document, shape)))
    return chart + _highest(document)


_SCOPES: Final = ("fleet", "label", "device", "sensor")


def _highest(document: Document) -> str:
    rows = "".join(row for one in document["drift_scores"] for row in _highest_of(one))
    head = (
        '<tr><th>version</th><th>highest score</th><th class="number">score</th>'
        '<th class="number">threshold</th><th>at</th></tr>'
    )
    return f'<table class="highest"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _highest_of(scores: Document) -> Iterator[str]:
    for scope in _SCOPES:
        found = scores["highest"].get(scope)
        if found is None:
            continue
        bound = scores["thresholds"][scope]
        style = ' class="above"' if found["value"] > bound else ""
        of = found["of"] if scope == "fleet" else f"{scope} {found['of']}"
        yield (
            f"<tr{style}><td>{escape(scores['version'])}</td><td>{escape(of)}</td>"
            f'<td class="number">{found["value"]:.2f}</td><td class="number">{bound:.2f}'
            f"{'' if scores['calibrated'] else ' (default)'}</td>"
            f"<td>{duration(found['at_s'])}</td></tr>"
        )
