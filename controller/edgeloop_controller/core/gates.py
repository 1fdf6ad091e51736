"""The gates of a rollout: whether what a version did on its devices forbids going on.

`failures` counts members that rolled the version back: a rule on a known count, which spends no
chance of error. `disagreement` and `accuracy` judge samples, by tests that stay valid however
often one looks; the chance that a version which keeps its bounds is ever halted by them is at most
`terms.false_halt_rate` over the whole rollout, split evenly over the two.

Invariants: a verdict depends on the counts of the evidence and on the order in which old versions
first appear in it, on no other order; it states its figures in words.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.core.rollout_types import (
    Evidence,
    Member,
    MemberPhase,
    RolloutSpec,
    Verdict,
)
from edgeloop_controller.core.sequential import (
    interval,
    log_evidence_above,
    log_evidence_worse,
    threshold,
)
from edgeloop_protocol.messages import VersionRef

SAMPLED_GATES: Final = 2
"""Gates that spend of the false-halt rate."""

DISAGREEMENT_BOUND_MAX: Final = 0.9
"""No margin makes a version acceptable that disagrees with the old one nearly always."""

CAUSES_SHOWN_MAX: Final = 3

_ANSWERED: Final = (MemberPhase.OFFERED, MemberPhase.COMMITTED, MemberPhase.FAILED)


@dataclass(frozen=True)
class DisagreementBound:
    value: float
    evaluated: bool
    """Whether it comes from the version's evaluation, not from the terms alone."""


def judge(
    spec: RolloutSpec, members: Mapping[str, Member], evidence: Evidence
) -> tuple[Verdict, ...]:
    """All three verdicts, in the order failures, disagreement, accuracy."""
    return (
        _judge_failures(spec, members),
        _judge_disagreement(spec, evidence),
        _judge_accuracy(spec, evidence),
    )


def halting(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first verdict that halts, if any."""
    return next((verdict for verdict in verdicts if verdict.halted), None)


def disagreement_bound(spec: RolloutSpec, shadow_digest: str) -> DisagreementBound:
    """What may be disagreed with this old version: an evaluation against it sets its own bound.

    A version that was shown to be better after the world changed rightly disagrees with the old
    one on much of what a device sees.
    """
    evaluation, terms = spec.manifest.evaluation, spec.terms
    if (
        evaluation is None
        or evaluation.disagreement is None
        or evaluation.against is None
        or evaluation.against.manifest_digest != shadow_digest
    ):
        return DisagreementBound(terms.max_disagreement, evaluated=False)
    value = min(DISAGREEMENT_BOUND_MAX, evaluation.disagreement + terms.disagreement_margin)
    return DisagreementBound(value, evaluated=True)


def _judge_failures(spec: RolloutSpec, members: Mapping[str, Member]) -> Verdict:
    counted = [member for member in members.values() if member.phase in _ANSWERED]
    failed = [member for member in counted if member.phase is MemberPhase.FAILED]
    allowed = math.floor(round(spec.terms.max_failed_fraction * len(counted), 6))
    causes = sorted({member.cause for member in failed if member.cause})[:CAUSES_SHOWN_MAX]
    sentence = f"{len(failed)} of {_devices(len(counted))} rolled {spec.target} back"
    if causes:
        sentence += f" ({'; '.join(causes)})"
    return Verdict(
        gate="failures",
        halted=len(failed) > allowed,
        sentence=f"{sentence}; {f'at most {allowed} may' if allowed else 'none may'}",
        looked=len(counted),
        evidence={
            "failed": len(failed),
            "members": len(counted),
            "allowed": allowed,
            "causes": causes,
            "devices": sorted(member.device_id for member in failed),
        },
    )


def _judge_disagreement(spec: RolloutSpec, evidence: Evidence) -> Verdict:
    """Each old version in shadow has its own bound; the worst of them speaks.

    The k-th old version to appear gets alpha / (k (k + 1)): these parts sum to at most alpha
    however many come, and none changes when another comes, as a split by their number would.
    """
    shadows = {w.shadow.manifest_digest: w.shadow for w in evidence.windows if w.count}
    if not shadows:
        return Verdict("disagreement", halted=False, sentence="nothing compared yet", looked=0)
    alpha = spec.terms.false_halt_rate / SAMPLED_GATES
    verdicts = [
        _judge_against(spec, evidence, shadow, alpha / (k * (k + 1)))
        for k, shadow in enumerate(shadows.values(), start=1)
    ]
    worst = max(verdicts, key=lambda v: (v.halted, v.evidence["log_evidence"]))
    looked = sum(verdict.looked for verdict in verdicts)
    return Verdict("disagreement", worst.halted, worst.sentence, looked, worst.evidence)


def _judge_against(spec: RolloutSpec, evidence: Evidence, old: VersionRef, alpha: float) -> Verdict:
    digest = old.manifest_digest
    windows = [w for w in evidence.windows if w.shadow.manifest_digest == digest and w.count]
    compared = sum(window.count for window in windows)
    differed = sum(window.disagreements for window in windows)
    devices = len({window.device_id for window in windows})
    bound = disagreement_bound(spec, digest)
    found = log_evidence_above(differed, compared, bound.value)
    halted = found >= threshold(alpha)
    likely = interval(differed, compared, alpha)
    sentence = (
        f"{spec.target} disagrees with {old} on {likely} of {compared} examples "
        f"on {_devices(devices)}; the bound is {bound.value:.0%}"
    )
    if halted and not bound.evaluated:
        sentence += f": publish with an evaluation against {old}, or raise max_disagreement"
    return Verdict(
        gate="disagreement",
        halted=halted,
        sentence=sentence,
        looked=compared,
        evidence={
            "shadow_digest": digest,
            "compared": compared,
            "disagreements": differed,
            "devices": devices,
            "low": likely.low,
            "high": likely.high,
            "bound": bound.value,
            "bound_from_evaluation": bound.evaluated,
            "log_evidence": found,
            "threshold": threshold(alpha),
        },
    )


def _judge_accuracy(spec: RolloutSpec, evidence: Evidence) -> Verdict:
    pairs = evidence.pairs
    if not pairs:
        return Verdict("accuracy", halted=False, sentence="no labels yet", looked=0)
    worse = sum(pair.shadow_correct and not pair.target_correct for pair in pairs)
    better = sum(pair.target_correct and not pair.shadow_correct for pair in pairs)
    found = log_evidence_worse(
        worse, better, len(pairs) - worse - better, spec.terms.max_accuracy_drop
    )
    limit = threshold(spec.terms.false_halt_rate / SAMPLED_GATES)
    right = sum(pair.target_correct for pair in pairs)
    old_right = sum(pair.shadow_correct for pair in pairs)
    return Verdict(
        gate="accuracy",
        halted=found >= limit,
        sentence=(
            f"{spec.target} is right on {right} of {len(pairs)} labelled examples, the old version "
            f"on {old_right}; a drop of {spec.terms.max_accuracy_drop:.0%} is allowed"
        ),
        looked=len(pairs),
        evidence={
            "labelled": len(pairs),
            "correct": right,
            "old_correct": old_right,
            "only_old_correct": worse,
            "only_new_correct": better,
            "devices": len({pair.device_id for pair in pairs}),
            "allowed_drop": spec.terms.max_accuracy_drop,
            "log_evidence": found,
            "threshold": limit,
        },
    )


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"
