"""Tests that stay valid however often one looks: evidence by betting.

A bettor starts with 1 and bets against the null hypothesis; under the null its capital is a
non-negative supermartingale, so that by Ville's inequality it ever reaches 1/alpha with
probability at most alpha, at whatever moments one looks. Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", JRSS B 86(1), 2023 (section 4; the mixture over
constant bets is their "diversified Kelly", appendix B).

Invariants: everything depends on the counts alone, never on the order of arrival within them, so
that telemetry that comes late or in another order changes no verdict.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def log_evidence_above(successes: int, total: int, bound: float) -> float:
    """Log capital against "every outcome's chance of success is at most `bound`".

    Halt when it reaches `log(1 / alpha)`.
    """
    raise NotImplementedError


def log_evidence_worse(worse: int, better: int, ties: int, tolerance: float) -> float:
    """Log capital against "the mean of (worse - better) over pairs is at most `tolerance`"."""
    raise NotImplementedError


def interval(successes: int, total: int, alpha: float) -> Interval:
    """An anytime-valid (1 - alpha) confidence interval for the mean of [0, 1] outcomes."""
    raise NotImplementedError
