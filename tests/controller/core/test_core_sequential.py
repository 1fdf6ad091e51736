"""The sequential tests hold what they state: false alarms under peeking, power, coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_controller.core.sequential import (
    interval,
    log_evidence_above,
    log_evidence_worse,
    threshold,
)

ALPHA = 0.05
STREAMS, LENGTH, BATCH = 400, 300, 10


def ever_halts(outcomes: np.ndarray, bound: float) -> float:
    """Share of streams (rows) whose evidence reaches the threshold at any look."""
    totals = outcomes.cumsum(axis=1)[:, BATCH - 1 :: BATCH]
    sizes = np.arange(1, totals.shape[1] + 1) * BATCH
    known: dict[tuple[int, int], bool] = {}

    def rejects(successes: int, total: int) -> bool:
        key = (successes, total)
        if key not in known:
            known[key] = log_evidence_above(successes, total, bound) >= threshold(ALPHA)
        return known[key]

    hits = [any(rejects(int(s), int(n)) for s, n in zip(row, sizes, strict=True)) for row in totals]
    return float(np.mean(hits))


@pytest.mark.parametrize("bound", [0.05, 0.3, 0.5, 0.9])
def test_false_halts_stay_below_alpha_however_often_one_looks(bound: float) -> None:
    outcomes = np.random.default_rng(1).random((STREAMS, LENGTH)) < bound
    # 3 standard errors of a share estimated from STREAMS streams.
    assert ever_halts(outcomes, bound) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / STREAMS)


def test_a_fixed_level_test_would_not_pass_this() -> None:
    """The simulation is able to fail: peeking at a plain z-test halts far too often."""
    outcomes = np.random.default_rng(1).random((STREAMS, LENGTH)) < 0.3
    totals = outcomes.cumsum(axis=1)[:, BATCH - 1 :: BATCH]
    sizes = np.arange(1, totals.shape[1] + 1) * BATCH
    z = (totals - 0.3 * sizes) / np.sqrt(sizes * 0.3 * 0.7)
    assert (z > 1.645).any(axis=1).mean() > 3 * ALPHA


def test_the_mean_capital_under_the_null_is_one() -> None:
    """Exactly, over all outcomes: sum of Binomial(k; n, m) * capital(k) == 1."""
    n, m = 40, 0.3
    mean = sum(
        math.comb(n, k) * m**k * (1 - m) ** (n - k) * math.exp(log_evidence_above(k, n, m))
        for k in range(n + 1)
    )
    assert mean == pytest.approx(1.0)


def test_the_mean_capital_of_pairs_under_the_null_is_one() -> None:
    n, p_worse, p_better = 12, 0.25, 0.20
    mean = 0.0
    for worse in range(n + 1):
        for better in range(n + 1 - worse):
            ties = n - worse - better
            ways = math.factorial(n) / (
                math.factorial(worse) * math.factorial(better) * math.factorial(ties)
            )
            chance = ways * p_worse**worse * p_better**better * (1 - p_worse - p_better) ** ties
            mean += chance * math.exp(log_evidence_worse(worse, better, ties, p_worse - p_better))
    assert mean == pytest.approx(1.0)


def test_power_on_a_permuted_model() -> None:
    """95 % disagreement against a bound of 50 %: nearly every stream halts within 30 examples."""
    outcomes = np.random.default_rng(2).random((STREAMS, 30)) < 0.95
    assert ever_halts(outcomes, 0.5) > 0.97


def test_power_on_pairs() -> None:
    assert log_evidence_worse(worse=12, better=0, ties=8, tolerance=0.02) > threshold(0.005)
    assert log_evidence_worse(worse=10, better=10, ties=80, tolerance=0.02) < threshold(0.5)


def test_interval_covers_the_mean_at_every_look() -> None:
    rng, mean = np.random.default_rng(3), 0.2
    missed = 0
    for _ in range(100):
        counts = (rng.random(200) < mean).cumsum()
        looks = [interval(int(counts[n - 1]), n, ALPHA) for n in range(10, 201, 30)]
        missed += any(not look.low <= mean <= look.high for look in looks)
    assert missed / 100 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 100)


def test_interval_narrows_with_examples() -> None:
    widths = [(found := interval(n * 3 // 10, n, ALPHA)).high - found.low for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.12


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.99))
def test_evidence_grows_with_successes_and_falls_with_failures(
    successes: int, failures: int, bound: float
) -> None:
    here = log_evidence_above(successes, successes + failures, bound)
    assert log_evidence_above(successes + 1, successes + failures + 1, bound) >= here
    assert log_evidence_above(successes, successes + failures + 1, bound) <= here


@given(st.integers(0, 200), st.integers(0, 200))
def test_interval_holds_the_observed_mean(successes: int, failures: int) -> None:
    total = successes + failures
    found = interval(successes, total, ALPHA)
    assert 0 <= found.low <= found.high <= 1
    if total:
        assert found.low <= successes / total <= found.high
    else:
        assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "total"), [(2, 1), (-1, 3)])
def test_impossible_counts_are_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match="successes of"):
        log_evidence_above(successes, total, 0.5)


def test_a_tolerance_of_one_forgives_everything() -> None:
    """As `max_accuracy_drop = 1.0` says, which the API takes: the gate is off."""
    assert log_evidence_worse(worse=1000, better=0, ties=0, tolerance=1.0) <= 0
