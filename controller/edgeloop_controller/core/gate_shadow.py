"""The gates of a shadow phase: what a challenger did beside the champions (ADR 0028).

`shadow_failures` is a rule on a count; the others are tests by betting (core.sequential), over the
fleet, each architecture and each site, and share the rollout's one false-halt rate
(core.false_halts). Their nulls, given the past: an answer disagrees with chance at most the bound
of core.gate_paired; an example has no finite answer with chance at most `max_error_rate`; a window
is slower than `max_latency_ratio` allows with chance at most SLOWER_SHARE.

Invariants: a verdict depends on the counts of the evidence and on the order in which champions and
groups first appear in it; it speaks of the whole unless only a group halts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.core.false_halts import part
from edgeloop_controller.core.gate_paired import judge_compared
from edgeloop_controller.core.rollout_types import (
    ComparedWindow,
    DeviceView,
    GateName,
    RolloutSpec,
    Verdict,
)
from edgeloop_controller.core.sequential import interval, log_evidence_above, threshold
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_controller.core.shadow_types import ShadowMember, ShadowSeen, ShadowStage
from edgeloop_controller.core.strata import Group, Stratum, groups_of, holds, stratum_of

SLOWER_SHARE: Final = 0.5
"""Of windows that may be slower: whether the ratio's median is beyond the bound."""

CAUSES_SHOWN_MAX: Final = 3

Strata = Mapping[str, Stratum]


@dataclass(frozen=True)
class _Share:
    """A gate on the share of what is counted that is bad."""

    gate: GateName
    bad: Callable[[ShadowSeen], int]
    all: Callable[[ShadowSeen], int]
    bound: Callable[[ShadowTerms], float]
    says: str
    """With the places {target}, {share}, {ratio} and {champion}."""
    of: str


_SHARES: Final = (
    _Share(
        "shadow_errors",
        lambda seen: seen.failed,
        lambda seen: seen.count + seen.failed,
        lambda terms: terms.max_error_rate,
        "{target} gives no finite answer to {share}",
        "examples",
    ),
    _Share(
        "shadow_latency",
        lambda seen: seen.slower,
        lambda seen: seen.windows,
        lambda _: SLOWER_SHARE,
        "{target} takes over {ratio:g} times as long as {champion} (p95) in {share}",
        "windows",
    ),
)


def judge_shadow(
    spec: RolloutSpec,
    members: Mapping[str, ShadowMember],
    seen: Sequence[ShadowSeen],
    views: Mapping[str, DeviceView],
) -> tuple[Verdict, ...]:
    """One verdict for each shadow gate; `seen` is of `members`."""
    terms = spec.terms.shadow
    if terms is None:
        return ()
    strata = {
        device_id: stratum_of(views[device_id], spec.terms.site_label)
        for device_id in members
        if device_id in views
    }
    compared = [ComparedWindow(s.device_id, s.champion, s.count, s.disagreements) for s in seen]
    return (
        _judge_refusals(spec, terms, members),
        judge_compared(spec, "shadow_disagreement", compared, strata),
        *(_judge_share(one, spec, terms, seen, strata) for one in _SHARES),
    )


def _judge_refusals(
    spec: RolloutSpec, terms: ShadowTerms, members: Mapping[str, ShadowMember]
) -> Verdict:
    counted = [member for member in members.values() if member.takes_place]
    refused = [member for member in counted if member.stage is ShadowStage.REFUSED]
    allowed = math.floor(round(terms.max_refused_fraction * len(counted), 6))
    causes = sorted({member.cause for member in refused if member.cause})[:CAUSES_SHOWN_MAX]
    said = f"{len(refused)} of {_counted(len(counted), 'device')} refused {spec.target}"
    said += f" ({'; '.join(causes)})" if causes else ""
    return Verdict(
        gate="shadow_failures",
        halted=len(refused) > allowed,
        sentence=f"{said}; {f'at most {allowed}' if allowed else 'none'} may",
        looked=len(counted),
        evidence={
            "refused": len(refused),
            "devices": len(counted),
            "allowed": allowed,
            "causes": causes,
            "refused_by": sorted(member.device_id for member in refused),
        },
    )


def _judge_share(
    one: _Share, spec: RolloutSpec, terms: ShadowTerms, seen: Sequence[ShadowSeen], strata: Strata
) -> Verdict:
    """The whole comes first, and speaks where no group halts."""
    counted = [told for told in seen if one.all(told)]
    if not counted:
        return Verdict(one.gate, halted=False, sentence=f"no {one.of} yet", looked=0)
    devices = dict.fromkeys(told.device_id for told in counted)
    groups = groups_of(strata[device] for device in devices if device in strata)
    judged = [_judge_group(one, spec, terms, counted, strata, group) for group in groups]
    return next((verdict for verdict in judged if verdict.halted), judged[0])


def _judge_group(
    one: _Share,
    spec: RolloutSpec,
    terms: ShadowTerms,
    counted: Sequence[ShadowSeen],
    strata: Strata,
    group: Group,
) -> Verdict:
    inside = [told for told in counted if holds(group, strata.get(told.device_id))]
    bad, total = sum(map(one.bad, inside)), sum(map(one.all, inside))
    bound, alpha = one.bound(terms), part(spec.terms, one.gate, group.view, group.place)
    found, limit = log_evidence_above(bad, total, bound), threshold(alpha)
    likely = interval(bad, total, alpha)
    champions = list(dict.fromkeys(str(told.champion) for told in inside))
    champion = champions[0] if len(champions) == 1 else f"{len(champions)} old versions"
    devices = len({told.device_id for told in inside})
    where = "" if group.view == "fleet" else f" of {group}"
    says = one.says.format(
        target=spec.target,
        share=f"{likely} of {total} {one.of} on {_counted(devices, 'device')}{where}",
        ratio=terms.max_latency_ratio,
        champion=champion,
    )
    return Verdict(
        gate=one.gate,
        halted=found >= limit,
        sentence=f"{says}; {bound:.0%} may",
        looked=total,
        evidence={
            "group": str(group),
            one.of: total,
            "bad": bad,
            "devices": devices,
            "low": likely.low,
            "high": likely.high,
            "bound": bound,
            # With a bound of 0 a single example is all the evidence there can be.
            "log_evidence": found if math.isfinite(found) else None,
            "threshold": limit,
        },
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
