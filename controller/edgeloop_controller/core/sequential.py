"""Tests that stay valid however often one looks: evidence by betting.

A bettor starts with 1 and bets against the null hypothesis; under the null its capital is a
non-negative supermartingale, so that by Ville's inequality it ever reaches 1/alpha with
probability at most alpha, at whatever moments one looks. Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", JRSS B 86(1):1-27, 2023: the one-sided capital
process K_t = prod(1 + lambda_i (x_i - m)) of their section 4, with the capital spread over a grid
of constant bets (their diversified Kelly betting). A constant bet is predictable, and it makes
the capital a function of the counts alone. A predictable plug-in bet would hang on the order in
which telemetry happens to arrive, and has to guess its first bet, which is costly when a single
canary sends its evidence in a few batches.

Invariants: everything depends on the counts alone, never on the order of arrival, so that what
comes late or in another order changes no verdict. The null is about each outcome's chance given
the past: a device that meets a hard hour may exceed a bound that its whole day keeps.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BETS: Final = 64
"""Constant bets over which the capital is spread; the best of them costs log(64) = 4.2 at most."""

_FRACTIONS: Final[NDArray[np.float64]] = (np.arange(BETS) + 0.5) / BETS
"""Each bet as a fraction of what can be staked without ever going below zero."""

_PRECISION: Final = 1e-6


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.0%} to {self.high:.0%}"


def threshold(alpha: float) -> float:
    """The log evidence at which a null may be rejected: Ville's bound."""
    return math.log(1 / alpha)


def log_evidence_above(successes: int, total: int, bound: float) -> float:
    """Log capital against "every outcome's chance of success is at most `bound`".

    0 <= successes <= total. Reject at `threshold(alpha)`. The stakes are lambda = c / bound, c in
    (0, 1), so that a success multiplies by 1 + c (1 - bound) / bound and a failure by 1 - c.
    """
    _check(successes, total)
    if total == 0 or bound >= 1:
        return 0.0
    if bound <= 0:
        return math.inf if successes else 0.0
    gain = np.log1p(_FRACTIONS * (1 - bound) / bound)
    return _spread(successes * gain + (total - successes) * np.log1p(-_FRACTIONS))


def log_evidence_worse(worse: int, better: int, ties: int, tolerance: float) -> float:
    """Log capital against "per pair, the chance of worse less that of better is <= `tolerance`".

    A pair is an example that both versions answered: `worse` counts those that only the old one
    got right, `better` those that only the new one did. With tolerance 0 and no ties it is the
    sign test. An outcome y in {1, -1, 0} multiplies the capital by 1 + lambda (y - tolerance),
    lambda = c / (1 + tolerance), c in (0, 1).
    """
    if min(worse, better, ties) < 0 or not 0 <= tolerance <= 1:
        raise ValueError("counts must not be negative; tolerance lies in [0, 1]")
    stakes = _FRACTIONS / (1 + tolerance)
    return _spread(
        worse * np.log1p(stakes * (1 - tolerance))
        + better * np.log1p(-stakes * (1 + tolerance))
        + ties * np.log1p(-stakes * tolerance)
    )


def interval(successes: int, total: int, alpha: float) -> Interval:
    """An anytime-valid (1 - alpha) confidence interval for the mean of [0, 1] outcomes.

    The bounds that neither of two bettors, one on each side and each at alpha / 2, can reject.
    Evidence falls as the bound rises, so bisection finds the edge.
    """
    _check(successes, total)
    low = _lowest_kept(successes, total, alpha / 2)
    high = 1 - _lowest_kept(total - successes, total, alpha / 2)
    return Interval(low, high)


def _lowest_kept(successes: int, total: int, alpha: float) -> float:
    if successes == 0:
        return 0.0
    rejected, kept = 0.0, successes / total
    while kept - rejected > _PRECISION:
        middle = (rejected + kept) / 2
        if log_evidence_above(successes, total, middle) >= threshold(alpha):
            rejected = middle
        else:
            kept = middle
    return rejected


def _spread(log_capitals: NDArray[np.float64]) -> float:
    """Log of the mean capital over the bets."""
    largest = float(log_capitals.max())
    return largest + math.log(float(np.exp(log_capitals - largest).mean()))


def _check(successes: int, total: int) -> None:
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
