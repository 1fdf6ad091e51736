"""The gates that judge examples which both versions answered: disagreement in shadow, and accuracy.

The strongest evidence there is: the old version on the same device, on the same examples. Tests by
betting, valid however often one looks (core.sequential), over the whole fleet, each architecture
and each site.

Invariants: a verdict depends on the counts of the evidence and on the order in which old versions
and groups first appear in it, on no other order; it speaks of the whole unless only a group halts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from edgeloop_controller.core.false_halts import part
from edgeloop_controller.core.rollout_types import (
    ComparedWindow,
    Evidence,
    GateName,
    LabelledPair,
    RolloutSpec,
    Verdict,
)
from edgeloop_controller.core.sequential import (
    interval,
    log_evidence_above,
    log_evidence_worse,
    threshold,
)
from edgeloop_controller.core.strata import Group, Stratum, groups_of, holds
from edgeloop_protocol.messages import VersionRef

DISAGREEMENT_BOUND_MAX: Final = 0.9
"""No margin makes a version acceptable that disagrees with the old one nearly always."""


class _Tally(NamedTuple):
    """What is known of one device by labels."""

    device_id: str
    only_old: int
    only_new: int
    both: int
    neither: int


Item = TypeVar("Item", ComparedWindow, _Tally)

Strata = Mapping[str, Stratum]
"""Device id → where it stands; a device that is not known is counted in the whole alone."""


@dataclass(frozen=True)
class DisagreementBound:
    value: float
    evaluated: bool
    """Whether it comes from the version's evaluation, not from the terms alone."""


def judge_disagreement(spec: RolloutSpec, evidence: Evidence, strata: Strata) -> Verdict:
    """Of the waves' members, with the old version in shadow."""
    return judge_compared(spec, "disagreement", evidence.windows, strata)


def judge_compared(
    spec: RolloutSpec, gate: GateName, compared: Sequence[ComparedWindow], strata: Strata
) -> Verdict:
    """Each old version has its own bound; the worst of them speaks."""
    counted = [window for window in compared if window.count]
    shadows = {window.shadow.manifest_digest: window.shadow for window in counted}
    if not shadows:
        return Verdict(gate, halted=False, sentence="nothing compared yet", looked=0)
    groups = _groups(counted, strata)
    verdicts = []
    for k, (digest, old) in enumerate(shadows.items(), start=1):
        windows = [window for window in counted if window.shadow.manifest_digest == digest]
        verdicts.append(
            _first_to_halt(
                _judge_against(spec, gate, _in_group(group, windows, strata), old, group, k)
                for group in groups
            )
        )
    worst = max(verdicts, key=lambda v: (v.halted, v.evidence["log_evidence"]))
    looked = sum(window.count for window in counted)
    return Verdict(gate, worst.halted, worst.sentence, looked, worst.evidence)


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


def _judge_against(
    spec: RolloutSpec,
    gate: GateName,
    windows: Sequence[ComparedWindow],
    old: VersionRef,
    group: Group,
    k: int,
) -> Verdict:
    alpha = part(spec.terms, gate, group.view, group.place, k)
    compared = sum(window.count for window in windows)
    differed = sum(window.disagreements for window in windows)
    devices = len({window.device_id for window in windows})
    bound = disagreement_bound(spec, old.manifest_digest)
    found = log_evidence_above(differed, compared, bound.value)
    halted = found >= threshold(alpha)
    if not halted and group.view != "fleet":
        return Verdict(gate, halted=False, sentence="", looked=compared)
    likely = interval(differed, compared, alpha)
    sentence = (
        f"{spec.target} disagrees with {old} on {likely} of {compared} examples "
        f"on {_devices(devices, group)}; the bound is {bound.value:.0%}"
    )
    if halted and not bound.evaluated:
        sentence += f": publish with an evaluation against {old}, or raise max_disagreement"
    return Verdict(
        gate=gate,
        halted=halted,
        sentence=sentence,
        looked=compared,
        evidence={
            "shadow_digest": old.manifest_digest,
            "group": str(group),
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


def judge_accuracy(spec: RolloutSpec, evidence: Evidence, strata: Strata) -> Verdict:
    if not evidence.pairs:
        return Verdict("accuracy", halted=False, sentence="no labels yet", looked=0)
    tallies = [_Tally(device_id, *counts) for device_id, counts in _counted(evidence.pairs).items()]
    found = _first_to_halt(
        _judge_pairs(spec, _in_group(group, tallies, strata), group)
        for group in _groups(tallies, strata)
    )
    return Verdict("accuracy", found.halted, found.sentence, len(evidence.pairs), found.evidence)


def _counted(pairs: Sequence[LabelledPair]) -> dict[str, list[int]]:
    """Device id → labelled examples that only the old version had right, only the new one, both,
    neither."""
    counts: dict[str, list[int]] = {}
    for pair in pairs:
        of_device = counts.get(pair.device_id)
        if of_device is None:
            of_device = counts[pair.device_id] = [0, 0, 0, 0]
        if pair.target_correct:
            of_device[2 if pair.shadow_correct else 1] += 1
        else:
            of_device[0 if pair.shadow_correct else 3] += 1
    return counts


def _judge_pairs(spec: RolloutSpec, tallies: Sequence[_Tally], group: Group) -> Verdict:
    worse, better = sum(t.only_old for t in tallies), sum(t.only_new for t in tallies)
    both, neither = sum(t.both for t in tallies), sum(t.neither for t in tallies)
    labelled, drop = worse + better + both + neither, spec.terms.max_accuracy_drop
    found = log_evidence_worse(worse, better, both + neither, drop)
    limit = threshold(part(spec.terms, "accuracy", group.view, group.place))
    of_group = "" if group.view == "fleet" else f" on {_devices(len(tallies), group)}"
    return Verdict(
        gate="accuracy",
        halted=found >= limit,
        sentence=(
            f"{spec.target} is right on {both + better} of {labelled} labelled examples{of_group}, "
            f"the old version on {both + worse}; a drop of {drop:.0%} is allowed"
        ),
        looked=labelled,
        evidence={
            "group": str(group),
            "labelled": labelled,
            "correct": both + better,
            "old_correct": both + worse,
            "only_old_correct": worse,
            "only_new_correct": better,
            "devices": len(tallies),
            "allowed_drop": drop,
            "log_evidence": found,
            "threshold": limit,
        },
    )


def _groups(items: Sequence[ComparedWindow] | Sequence[_Tally], strata: Strata) -> list[Group]:
    devices = dict.fromkeys(item.device_id for item in items)
    return groups_of(strata[device] for device in devices if device in strata)


def _in_group(group: Group, items: Sequence[Item], strata: Strata) -> Sequence[Item]:
    if group.view == "fleet":
        return items
    return [item for item in items if holds(group, strata.get(item.device_id))]


def _first_to_halt(verdicts: Iterable[Verdict]) -> Verdict:
    """The whole comes first, and speaks where no one halts."""
    judged = list(verdicts)
    return next((verdict for verdict in judged if verdict.halted), judged[0])


def _devices(count: int, group: Group) -> str:
    named = f"{count} device" if count == 1 else f"{count} devices"
    return named if group.view == "fleet" else f"{named} of {group}"
