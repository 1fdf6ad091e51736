"""Members of a wave against control devices that the lot left on the old version (ADR 0023).

Within a stratum the lot orders the devices, and the first are members. The others are dealt to the
members in the lot's order, so that a member and its controls make a set of which the lot has picked
one, evenly. Null: no member's value exceeds what it would have been on the old version by more than
the tolerance. With the tolerance taken off, a member's rank in its set is then at most as high as
an even draw's, so that a score which falls with the rank, over its mean in the set, has expectation
at most 1; sets share no device, so the product over members is an e-value. By Markov's inequality
it reaches 1/alpha with chance at most alpha. Ties share the scores of the ranks that they span,
which leaves the set's mean as it is.

Invariants: nothing is assumed of the values; a member without a control counts for nothing; the
evidence never grows with the tolerance.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONTROLS_PER_MEMBER_MAX: Final = 40
"""More say little more; a score beyond the set's best is 41 times its mean."""

POWERS: Final[Floats] = np.array([0.25, 0.5, 1.0, 2.0])
"""Scores fall with these powers of the rank: bets on a shift of many, and of a few by much."""

STEPS: Final = 16
"""Halvings in the search of an interval's end."""


@dataclass(frozen=True)
class Interval:
    """Of the effect; an end is infinite where it is not known."""

    low: float
    high: float


@dataclass(frozen=True)
class Sets:
    """`members` and `controls` are rows of the pool; `owner[j]` is the set (the position in
    `members`) that control j was dealt to. Every set has a control."""

    members: NDArray[np.int64]
    controls: NDArray[np.int64]
    owner: NDArray[np.int64]

    def among(self, chosen: NDArray[np.bool_]) -> "Sets":
        """The sets of those members for which `chosen`, which goes over `members`, is true."""
        if bool(chosen.all()):
            return self
        kept = chosen[self.owner]
        renumbered = np.cumsum(chosen) - 1
        return Sets(self.members[chosen], self.controls[kept], renumbered[self.owner[kept]])


def deal(strata: Sequence[Hashable], is_member: NDArray[np.bool_]) -> Sets:
    """Deal the controls of each stratum to its members; the pool's rows are in the lot's order."""
    rows: dict[Hashable, tuple[list[int], list[int]]] = {}
    for row, (stratum, member) in enumerate(zip(strata, is_member.tolist(), strict=True)):
        rows.setdefault(stratum, ([], []))[0 if member else 1].append(row)
    members: list[int] = []
    controls: list[int] = []
    owner: list[int] = []
    for chosen, others in rows.values():
        # A member beyond the controls has none; which ones these are is the lot's choice.
        sets = min(len(chosen), len(others))
        if sets:
            others = others[: sets * CONTROLS_PER_MEMBER_MAX]
            owner += [len(members) + position % sets for position in range(len(others))]
            controls += others
            members += chosen[:sets]
    return Sets(*(np.array(part, dtype=np.int64) for part in (members, controls, owner)))


def log_scores(sets: Sets, values: Floats, tolerance: float) -> Floats:
    """[power, set] → log of each set's score over its mean, the tolerance taken off the member;
    `values` go over the pool."""
    mine = values[sets.members] - tolerance
    theirs, facing = values[sets.controls], mine[sets.owner]
    count = len(sets.members)
    sizes = np.bincount(sets.owner, minlength=count)
    above = np.bincount(sets.owner[theirs > facing], minlength=count)
    equal = np.bincount(sets.owner[theirs == facing], minlength=count)
    table = _scores()
    spans = table[:, sizes, above + equal + 1] - table[:, sizes, above]
    logs: Floats = np.log(spans / (equal + 1))
    return logs


def log_evidence(scores: Floats) -> float:
    """Log e-value of some sets, of their `log_scores`; 0 where there is none: nothing is known."""
    if not scores.shape[1]:
        return 0.0
    logs = scores.sum(axis=1)
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).mean()))


def log_evidence_exceeds(sets: Sets, values: Floats, tolerance: float) -> float:
    """Log e-value against "no member exceeds its controls' like by more than `tolerance`"."""
    return log_evidence(log_scores(sets, values, tolerance))


def effect_interval(sets: Sets, values: Floats, alpha: float) -> Interval:
    """The effects, alike on all members, that neither side rejects at `alpha`: a confidence
    interval of level 1 - 2 alpha."""
    limit = math.log(1 / alpha)
    return Interval(
        _largest_rejected(sets, values, limit), -_largest_rejected(sets, -values, limit)
    )


def _largest_rejected(sets: Sets, values: Floats, limit: float) -> float:
    """The evidence falls as the tolerance grows."""
    if not len(sets.members):
        return -math.inf
    mine, theirs = values[sets.members], values[sets.controls]
    low = float(mine.min() - theirs.max()) - 1e-9
    high = float(mine.max() - theirs.min()) + 1e-9
    if log_evidence_exceeds(sets, values, low) < limit:
        return -math.inf
    for _ in range(STEPS):
        middle = (low + high) / 2
        if log_evidence_exceeds(sets, values, middle) >= limit:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=1)
def _scores() -> Floats:
    """[power, controls n, ranks r] → the sum of the scores of ranks 1..r in a set of n + 1, whose
    scores have mean 1."""
    largest = CONTROLS_PER_MEMBER_MAX
    table = np.zeros((len(POWERS), largest + 1, largest + 2))
    for controls in range(largest + 1):
        ranks = np.arange(1, controls + 2)
        scores = ranks[None, :] ** -POWERS[:, None]
        scores /= scores.mean(axis=1, keepdims=True)
        table[:, controls, 1 : controls + 2] = scores.cumsum(axis=1)
    return table
