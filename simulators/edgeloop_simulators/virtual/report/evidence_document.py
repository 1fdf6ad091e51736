"""The evidence of gates and the scores of drift, as report.json holds them.

Invariants: nothing that a gate or a threshold stood against is left out of what is kept; each list
has a named limit; what was not judged is None, never 0.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from edgeloop_controller.core.rollout import RolloutTerms, Verdict
from edgeloop_protocol.manifest import DriftThresholds
from edgeloop_simulators.virtual.run.evidence import (
    DriftPoint,
    DriftTrack,
    GatePoint,
    Highest,
)
from edgeloop_simulators.virtual.run.recording import Recording, RolloutRecord

GATE_POINTS_MAX: Final = 200
"""Of each rollout; of more, the first, the last and as many between, evenly."""
FLEET: Final = "the fleet"

Document = dict[str, Any]
_SCORES: Final[Mapping[str, Callable[[DriftPoint], Highest | None]]] = {
    "fleet": lambda point: _of_fleet(point.fleet),
    "fleet_ks": lambda point: _of_fleet(point.fleet_ks),
    "predictions_psi": lambda point: _of_fleet(point.predictions_psi),
    "confidence_psi": lambda point: _of_fleet(point.confidence_psi),
    "label": lambda point: point.label,
    "device": lambda point: point.device,
    "sensor": lambda point: point.sensor,
}


# ---- gates --------------------------------------------------------------------------------------


def gates(rollout: RolloutRecord, recording: Recording) -> Document:
    """`points`: from each on, what is known; `said`: each gate's last words, and at how many
    devices or examples it looked; `replaces`: what the rollout's devices ran at its start, with
    which the new version is compared."""
    evidence = recording.recorder.evidence
    points = evidence.gates.get(rollout.id, [])
    terms = evidence.terms.get(rollout.id)
    return {
        "replaces": _replaced(rollout, recording),
        "terms": None if terms is None else _terms(terms),
        "said": [
            {
                "gate": one.gate,
                "halted": one.halted,
                "looked": one.looked,
                "sentence": one.sentence,
            }
            for one in (points[-1].verdicts if points else ())
        ],
        "points": [_gate_point(point, evidence.versions) for point in _thinned(points)],
    }


def gate_figures(gates: Mapping[str, Any], status: str) -> Iterator[tuple[str, Any, str]]:
    """(name, value, unit), of what a gate saw last."""
    last = gates["points"][-1] if gates["points"] else {}
    yield "halted by", halting_gate(gates, status), "text"
    yield "examples compared", last.get("compared", 0), "count"
    yield "disagreed with the old version", last.get("disagreement"), "share"


def halting_gate(gates: Mapping[str, Any], status: str) -> str:
    """A controller that is killed just after a halt takes the gate's name with it."""
    if status != "halted":
        return "no gate"
    return next((one["gate"] for one in gates["said"] if one["halted"]), "not seen")


def _replaced(rollout: RolloutRecord, recording: Recording) -> list[str]:
    champions = {
        recording.at(device, rollout.started_s).champion for device in rollout.matching
    } - {None, rollout.version}
    return sorted(champion for champion in champions if champion is not None)


def _terms(terms: RolloutTerms) -> Document:
    return {
        "min_compared": terms.min_compared if terms.probation.compare else 0,
        "max_failed_fraction": terms.max_failed_fraction,
        "max_accuracy_drop": terms.max_accuracy_drop,
        "false_halt_rate": terms.false_halt_rate,
    }


def _gate_point(point: GatePoint, versions: Mapping[str, str]) -> Document:
    by_gate: dict[str, Verdict] = {verdict.gate: verdict for verdict in point.verdicts}
    failures = by_gate["failures"].evidence
    found: Document = {
        "at_s": point.at_s,
        "members": failures["members"],
        "failed": failures["failed"],
        "allowed": failures["allowed"],
        "compared": by_gate["disagreement"].looked,
        "labelled": by_gate["accuracy"].looked,
    }
    compared, labelled = by_gate["disagreement"].evidence, by_gate["accuracy"].evidence
    if compared:
        found |= {
            "against": versions[compared["shadow_digest"]],
            "disagreement": _rounded(compared["disagreements"] / compared["compared"]),
            "low": _rounded(compared["low"]),
            "high": _rounded(compared["high"]),
            "bound": _rounded(compared["bound"]),
        }
    if labelled:
        right, old = labelled["correct"], labelled["old_correct"]
        found |= {
            "right": _rounded(right / labelled["labelled"]),
            "old_right": _rounded(old / labelled["labelled"]),
            "allowed_drop": labelled["allowed_drop"],
        }
    return found


def _thinned(points: Sequence[GatePoint]) -> list[GatePoint]:
    if len(points) <= GATE_POINTS_MAX:
        return list(points)
    step = (len(points) - 1) / (GATE_POINTS_MAX - 1)
    return [points[round(number * step)] for number in range(GATE_POINTS_MAX)]


# ---- drift --------------------------------------------------------------------------------------


def drift_scores(recording: Recording, times: Sequence[float]) -> list[Document]:
    """One for each version that was looked at, on each slot. `series`: at each of `times` the
    highest since the one before, else what was found last; `highest`: over the whole run, and whose
    it was."""
    return [_track(track, times) for track in recording.recorder.evidence.drift.values()]


def drift_figures(scores: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any, str]]:
    """(name, value, unit): how high each score came, in thresholds."""
    for one in scores:
        for scope in ("fleet", "device", "sensor"):
            highest = one["highest"].get(scope)
            if highest is not None:
                value = highest["value"] / one["thresholds"][scope]
                yield f"drift of {one['version']}: {scope}, highest score", value, "thresholds"


def _track(track: DriftTrack, times: Sequence[float]) -> Document:
    series = {name: _series(track, times, score) for name, score in _SCORES.items()}
    highest = {name: _highest(track, score) for name, score in _SCORES.items()}
    return {
        "version": track.version,
        "slot": track.slot,
        "calibrated": track.calibrated,
        "thresholds": _thresholds(track.thresholds),
        "looks": len(track.points),
        "highest": {name: one for name, one in highest.items() if one is not None},
        "series": {
            name: values
            for name, values in series.items()
            if any(value is not None for value in values)
        },
    }


def _thresholds(thresholds: DriftThresholds) -> dict[str, float]:
    return {
        "fleet": thresholds.fleet,
        "label": thresholds.fleet,
        "device": thresholds.device,
        "sensor": thresholds.sensor,
    }


def _series(
    track: DriftTrack, times: Sequence[float], score: Callable[[DriftPoint], Highest | None]
) -> list[float | None]:
    found = [(point.at_s, _value(score(point))) for point in track.points]
    changes = sorted([*found, *((left_s, None) for left_s in track.left_s)], key=lambda one: one[0])
    values: list[float | None] = []
    last, read = None, 0
    for at_s in times:
        within = []
        while read < len(changes) and changes[read][0] <= at_s:
            last = changes[read][1]
            within.append(last)
            read += 1
        values.append(max((value for value in within if value is not None), default=last))
    return values


def _highest(track: DriftTrack, score: Callable[[DriftPoint], Highest | None]) -> Document | None:
    """The first of equals."""
    found = [(point.at_s, one) for point in track.points if (one := score(point)) is not None]
    if not found:
        return None
    at_s, highest = max(found, key=lambda one: one[1].value)
    return {"at_s": at_s, "value": _rounded(highest.value), "of": highest.of}


def _value(highest: Highest | None) -> float | None:
    return None if highest is None else _rounded(highest.value)


def _of_fleet(value: float | None) -> Highest | None:
    return None if value is None else Highest(value, FLEET)


def _rounded(value: float) -> float:
    return round(value, 4)
