"""The gates of a rollout: whether what a version did on its devices forbids going on.

`failures` counts members that rolled the version back; `disagreement` and `accuracy` judge examples
that both versions answered (core.gate_paired); `crashes`, `errors`, `latency`, `memory`,
`confidence` and `predictions` judge members against devices that still run the old version
(core.gate_control). The chance that a version which keeps its bounds is ever halted by a test is at
most `terms.false_halt_rate` over the whole rollout (core.false_halts); the rule of `failures` on
the whole count is no test and spends no chance of error.

Invariants: a verdict depends on the counts of the evidence and on the order in which old versions
and groups first appear in it, on no other order; it states its figures in words.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeloop_controller.core.false_halts import part
from edgeloop_controller.core.gate_control import judge_against_control
from edgeloop_controller.core.gate_paired import judge_accuracy, judge_disagreement
from edgeloop_controller.core.rollout_types import (
    DeviceView,
    Evidence,
    Member,
    MemberPhase,
    RolloutSpec,
    Verdict,
)
from edgeloop_controller.core.sequential import log_evidence_above, threshold
from edgeloop_controller.core.strata import Group, Stratum, groups_of, holds, stratum_of

CAUSES_SHOWN_MAX: Final = 3

_ANSWERED: Final = (MemberPhase.OFFERED, MemberPhase.COMMITTED, MemberPhase.FAILED)


def judge(
    spec: RolloutSpec,
    members: Mapping[str, Member],
    evidence: Evidence,
    views: Mapping[str, DeviceView] | None = None,
) -> tuple[Verdict, ...]:
    """All verdicts: failures, disagreement, accuracy, then those against the control group.

    `views` say where members stand; without, the fleet is one group.
    """
    strata = {
        device_id: stratum_of(views[device_id], spec.terms.site_label)
        for device_id in members
        if views is not None and device_id in views
    }
    return (
        _judge_failures(spec, members, strata),
        judge_disagreement(spec, evidence, strata),
        judge_accuracy(spec, evidence, strata),
        *judge_against_control(spec, evidence.look),
    )


def halting(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first verdict that halts, if any."""
    return next((verdict for verdict in verdicts if verdict.halted), None)


def _judge_failures(
    spec: RolloutSpec, members: Mapping[str, Member], strata: Mapping[str, Stratum]
) -> Verdict:
    """A rule on the whole count; then a test for each group, which the rule might overlook."""
    counted = [member for member in members.values() if member.phase in _ANSWERED]
    failed = [member for member in counted if member.phase is MemberPhase.FAILED]
    allowed = math.floor(round(spec.terms.max_failed_fraction * len(counted), 6))
    words = f"{f'at most {allowed} may' if allowed else 'none may'}"
    if len(failed) <= allowed and failed:
        found = _failing_group(spec, counted, strata)
        if found is not None:
            return found
    return Verdict(
        gate="failures",
        halted=len(failed) > allowed,
        sentence=f"{_rolled_back(spec, failed, len(counted))}; {words}",
        looked=len(counted),
        evidence=_failure_evidence(failed, len(counted)) | {"allowed": allowed},
    )


def _failing_group(
    spec: RolloutSpec, counted: Sequence[Member], strata: Mapping[str, Stratum]
) -> Verdict | None:
    """The first group whose devices fail with a greater chance than `max_failed_fraction`."""
    terms, placed = spec.terms, [m for m in counted if m.device_id in strata]
    placed.sort(key=lambda m: (m.offered_at or 0.0, m.device_id))
    for group in groups_of(strata[m.device_id] for m in placed)[1:]:
        inside = [m for m in placed if holds(group, strata[m.device_id])]
        failed = [m for m in inside if m.phase is MemberPhase.FAILED]
        evidence = log_evidence_above(len(failed), len(inside), terms.max_failed_fraction)
        limit = threshold(part(terms, "failures", group.view, group.place))
        if evidence >= limit:
            return Verdict(
                gate="failures",
                halted=True,
                sentence=f"{_rolled_back(spec, failed, len(inside), group)}; a share of "
                f"{terms.max_failed_fraction:.0%} may",
                looked=len(counted),
                evidence=_failure_evidence(failed, len(inside))
                | {
                    "allowed": math.floor(round(terms.max_failed_fraction * len(inside), 6)),
                    "group": str(group),
                    "log_evidence": evidence,
                    "threshold": limit,
                },
            )
    return None


def _rolled_back(
    spec: RolloutSpec, failed: Sequence[Member], counted: int, group: Group | None = None
) -> str:
    named = f"{counted} device" if counted == 1 else f"{counted} devices"
    where = "" if group is None else f" of {group}"
    sentence = f"{len(failed)} of {named}{where} rolled {spec.target} back"
    causes = _causes(failed)
    return f"{sentence} ({'; '.join(causes)})" if causes else sentence


def _failure_evidence(failed: Sequence[Member], counted: int) -> dict[str, Any]:
    return {
        "failed": len(failed),
        "members": counted,
        "causes": _causes(failed),
        "devices": sorted(member.device_id for member in failed),
    }


def _causes(failed: Sequence[Member]) -> list[str]:
    return sorted({member.cause for member in failed if member.cause})[:CAUSES_SHOWN_MAX]
