"""The gates that judge members against control devices, which the lot left on the old version.

Null of each, in words: no member's change since the wave began, against its own time before the
rollout, exceeds what the old version would have shown there by more than the tolerance of the terms
(core.control_group has the test, core.device_change the changes, ADR 0023 where it ends).

Invariants: a look is judged once; between looks the verdicts stay what they were.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.core.control_group import (
    Interval,
    Sets,
    deal,
    effect_interval,
    log_evidence,
    log_scores,
)
from edgeloop_controller.core.device_change import Measure
from edgeloop_controller.core.false_halts import part
from edgeloop_controller.core.rollout_types import Look, RolloutSpec, RolloutTerms, Verdict
from edgeloop_controller.core.sequential import threshold
from edgeloop_controller.core.strata import Group, Stratum, groups_of, holds

LOOKS_KEPT_MAX: Final = 8
"""Looks whose verdicts are kept, as each is asked for again until the next one."""


@dataclass(frozen=True)
class _Gate:
    measure: Measure
    tolerance: Callable[[RolloutTerms], float]
    """In the units of core.device_change."""
    says: Callable[[Interval], str]
    waits_for: str = ""
    """Why nothing may be known of it although devices report."""


def _by(interval: Interval, digits: int) -> str:
    """Of an effect known on both sides, or on one."""
    low, high = interval.low, interval.high
    if math.isinf(low) and math.isinf(high):
        return "by an amount not known yet"
    if math.isinf(high):
        return f"by at least {low:.{digits}f}"
    if math.isinf(low):
        return f"by at most {high:.{digits}f}"
    return f"by {low:.{digits}f} to {high:.{digits}f}"


def _moved(what: str, digits: int = 2, up: str = "rose", down: str = "fell") -> Callable[..., str]:
    """An effect that is surely below zero is said the other way round."""

    def says(interval: Interval) -> str:
        if interval.high < 0:
            turned = Interval(-interval.high, -interval.low)
            return f"{what} {down} {_by(turned, digits)}"
        return f"{what} {up} {_by(interval, digits)}"

    return says


def _ratio(what: str) -> Callable[[Interval], str]:
    def says(interval: Interval) -> str:
        low, high = (math.exp(min(end, 700.0)) for end in (interval.low, interval.high))
        if math.isinf(interval.low) and math.isinf(interval.high):
            return f"{what} changed by an amount not known yet"
        if math.isinf(interval.high):
            return f"{what} became at least {low:.2f} times what it was"
        if math.isinf(interval.low):
            return f"{what} became at most {high:.2f} times what it was"
        return f"{what} became {low:.2f} to {high:.2f} times what it was"

    return says


GATES: Final = (
    _Gate("crashes", lambda terms: terms.max_crash_rise, _moved("crashes of the runner", 1)),
    _Gate(
        "errors",
        lambda terms: terms.max_error_rate_rise,
        _moved("the share of examples without a finite answer", 3),
    ),
    _Gate("latency", lambda terms: math.log(terms.max_latency_ratio), _ratio("p95 latency")),
    _Gate(
        "memory",
        lambda terms: math.log(terms.max_memory_ratio),
        _ratio("memory"),
        "it is not judged while the old version runs in shadow",
    ),
    _Gate(
        "confidence",
        lambda terms: terms.max_confidence_drop,
        _moved("confidence", up="fell", down="rose"),
        "no device says its confidences: a version without a baseline has none to say",
    ),
    _Gate(
        "predictions",
        lambda terms: terms.max_prediction_shift,
        _moved("the share of answers that went to other labels"),
    ),
)


def judge_against_control(spec: RolloutSpec, look: Look | None) -> tuple[Verdict, ...]:
    """One verdict for each of GATES, in their order."""
    if not spec.terms.control_group:
        return tuple(_silent(gate, "no control group is asked for") for gate in GATES)
    if look is None:
        return tuple(_silent(gate, "no look at the control group yet") for gate in GATES)
    return _judge_look(_Asked(str(spec.target), spec.terms, look))


def members_watched(look: Look, examples: int) -> tuple[int, int]:
    """(members that answered at least so many examples since the wave began, all members) among
    those that have a control device of which enough is known; (0, 0): there is no control group."""
    changes = look.changes
    controls = np.flatnonzero(changes.judged & ~look.is_member).tolist()
    with_control = {look.strata[row] for row in controls}
    members = [
        row for row in np.flatnonzero(look.is_member).tolist() if look.strata[row] in with_control
    ]
    return int((changes.answered[members] >= examples).sum()), len(members)


@dataclass(frozen=True, eq=False)
class _Asked:
    target: str
    terms: RolloutTerms
    look: Look

    def __hash__(self) -> int:
        return hash((self.target, id(self.look)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Asked)
            and self.look is other.look
            and self.target == other.target
            and self.terms == other.terms
        )


@lru_cache(maxsize=LOOKS_KEPT_MAX)
def _judge_look(asked: _Asked) -> tuple[Verdict, ...]:
    groups = groups_of(asked.look.strata)
    dealt: dict[bytes, Sets] = {}
    return tuple(_judge_gate(gate, asked, groups, dealt) for gate in GATES)


def _judge_gate(
    gate: _Gate, asked: _Asked, groups: list[Group], dealt: dict[bytes, Sets]
) -> Verdict:
    """`dealt`: the sets by what is known, which is alike for most gates."""
    look, values = asked.look, asked.look.changes.by_measure[gate.measure]
    known = np.isfinite(values)
    if not (look.is_member & known).any():
        return _silent(gate, gate.waits_for or "not enough is known of the wave's devices yet")
    sets = dealt.get(known.tobytes())
    if sets is None:
        sets = dealt[known.tobytes()] = _deal_known(look, np.flatnonzero(known))
    if not len(sets.members):
        return _silent(gate, "no device that still runs the old version is left to compare with")
    scores = log_scores(sets, values, gate.tolerance(asked.terms))
    strata = [look.strata[row] for row in sets.members.tolist()]
    kinds, kind_of = np.unique(
        np.array([(s.architecture, s.site) for s in strata]), axis=0, return_inverse=True
    )
    for group in groups:
        inside = np.array([holds(group, Stratum(*kind)) for kind in kinds.tolist()])
        chosen = inside[kind_of.reshape(-1)]
        found = log_evidence(scores[:, chosen])
        if found >= threshold(_alpha(gate, asked, group)):
            return _verdict(gate, asked, group, sets.among(chosen), found)
    return _verdict(gate, asked, groups[0], sets, log_evidence(scores))


def _deal_known(look: Look, known: NDArray[np.int64]) -> Sets:
    """Sets of those rows, as rows of the look."""
    dealt = deal([look.strata[row] for row in known.tolist()], look.is_member[known])
    return Sets(known[dealt.members], known[dealt.controls], dealt.owner)


def _alpha(gate: _Gate, asked: _Asked, group: Group) -> float:
    look, terms = asked.look, asked.terms
    return part(terms, gate.measure, group.view, group.place, look.wave, look.number)


def _verdict(gate: _Gate, asked: _Asked, group: Group, sets: Sets, found: float) -> Verdict:
    look, alpha = asked.look, _alpha(gate, asked, group)
    effect = effect_interval(sets, look.changes.by_measure[gate.measure], alpha)
    members, controls = len(sets.members), len(sets.controls)
    old = str(look.old[0]) if len(look.old) == 1 else f"{len(look.old)} old versions"
    where = "" if group.view == "fleet" else f" of {group}"
    return Verdict(
        gate=gate.measure,
        halted=found >= threshold(alpha),
        sentence=(
            f"{gate.says(effect)} ({_percent(1 - 2 * alpha)}) on {_devices(members)}{where} with "
            f"{asked.target}, against {controls} still on {old}"
        ),
        looked=members,
        evidence={
            "group": str(group),
            "wave": look.wave,
            "look": look.number,
            "members": members,
            "controls": controls,
            "low": _finite(effect.low),
            "high": _finite(effect.high),
            "tolerance": gate.tolerance(asked.terms),
            "confidence_level": 1 - 2 * alpha,
            "log_evidence": found,
            "threshold": threshold(alpha),
        },
    )


def _silent(gate: _Gate, why: str) -> Verdict:
    return Verdict(gate.measure, halted=False, sentence=why, looked=0)


def _finite(end: float) -> float | None:
    """As JSON has no infinity."""
    return None if math.isinf(end) else end


def _percent(level: float) -> str:
    """Rounded down to the first digit that is not a nine: it claims no more than is true."""
    nines = max(0, math.floor(-math.log10(max(1 - level, 1e-9))) - 2)
    scale = 10 ** (nines + 1)
    return f"{math.floor(level * 100 * scale) / scale:g}%"


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"
