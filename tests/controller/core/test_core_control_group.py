"""Members against control devices: exact under the null, powerful against a shift, never fooled by
what all devices share."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeloop_controller.core.control_group import (
    CONTROLS_PER_MEMBER_MAX,
    Sets,
    deal,
    effect_interval,
    log_evidence,
    log_evidence_exceeds,
    log_scores,
)

ALPHA = 0.05
WORLDS = 2000


def pool(members: int, controls: int) -> NDArray[np.bool_]:
    return np.arange(members + controls) < members


def one_set(controls: int) -> Sets:
    return deal(["s"] * (controls + 1), pool(1, controls))


@pytest.mark.parametrize(
    "values", [(1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 0.0, 7.0), (5.0, 5.0, 5.0, 5.0)]
)
def test_the_mean_over_the_lot_is_one_exactly_ties_or_not(values: tuple[float, ...]) -> None:
    sets = one_set(len(values) - 1)
    drawn = [
        math.exp(log_evidence_exceeds(sets, np.roll(np.array(values), -first), 0.0))
        for first in range(len(values))
    ]
    assert np.mean(drawn) == pytest.approx(1.0)


def test_the_product_over_sets_has_mean_one_over_all_lots() -> None:
    """All ways to draw two members of five devices, and to deal the rest."""
    values = np.array([0.3, -1.0, 2.0, 2.0, 0.1])
    sets = deal(["s"] * 5, pool(2, 3))
    drawn = [
        math.exp(log_evidence_exceeds(sets, values[list(order)], 0.0))
        for order in itertools.permutations(range(5))
    ]
    assert np.mean(drawn) == pytest.approx(1.0)


def ever_rejected(effect: float, tolerance: float, seed: int) -> float:
    """Share of worlds, in which all devices drift alike and some are noisier than others."""
    rng = np.random.default_rng(seed)
    strata = [f"site-{n % 3}" for n in range(90)]
    is_member = np.arange(90) % 15 < 3
    order = np.argsort(~is_member, kind="stable")
    sets = deal([strata[n] for n in order], is_member[order])
    noise = rng.standard_t(2, size=(WORLDS, 90)) * rng.lognormal(0, 1, size=90)
    noise = noise[:, rng.permuted(np.tile(np.arange(90), (WORLDS, 1)), axis=1)[0]]
    shared = rng.normal(0, 5, size=(WORLDS, 3))[:, np.arange(90) % 3]
    values = (noise + shared)[:, order] + effect * is_member[order]
    found = [log_evidence_exceeds(sets, row, tolerance) for row in values]
    return float(np.mean(np.array(found) >= math.log(1 / ALPHA)))


@pytest.mark.parametrize(("effect", "tolerance"), [(0.0, 0.0), (0.4, 0.5), (0.5, 0.5)])
def test_false_alarms_stay_below_alpha(effect: float, tolerance: float) -> None:
    limit = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / WORLDS)
    assert ever_rejected(effect, tolerance, seed=1) <= limit


def test_a_shift_of_all_members_is_found() -> None:
    assert ever_rejected(30.0, 0.5, seed=2) > 0.99


def test_members_that_got_better_hide_no_false_alarm() -> None:
    """The null is about each device: some improve by much, others move by just the tolerance."""
    rng = np.random.default_rng(3)
    is_member = pool(10, 90)
    sets = deal(["s"] * 100, is_member)
    better = np.where(np.arange(100) < 5, -50.0, 1.0) * is_member
    hits = [
        log_evidence_exceeds(sets, rng.normal(size=100) + better, 1.0) >= math.log(1 / ALPHA)
        for _ in range(WORLDS)
    ]
    assert np.mean(hits) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / WORLDS)


def test_evidence_falls_as_the_tolerance_grows() -> None:
    values = np.random.default_rng(4).normal(size=60)
    sets = deal(["s"] * 60, pool(6, 54))
    found = [log_evidence_exceeds(sets, values, tolerance) for tolerance in np.linspace(-4, 4, 50)]
    assert found == sorted(found, reverse=True)


def test_the_interval_covers_the_effect() -> None:
    rng, missed, known = np.random.default_rng(5), 0, 0
    sets = deal(["s"] * 200, pool(10, 190))
    for _ in range(300):
        found = effect_interval(sets, rng.normal(size=200) + 3.0 * pool(10, 190), ALPHA / 2)
        missed += not found.low <= 3.0 <= found.high
        known += math.isfinite(found.low) and math.isfinite(found.high)
    assert missed / 300 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 300)
    assert known == 300


def test_no_control_says_nothing() -> None:
    sets = deal(["a", "a", "b"], np.array([True, True, False]))
    assert len(sets.members) == 0
    assert log_evidence_exceeds(sets, np.zeros(3), 0.0) == 0.0
    assert effect_interval(sets, np.zeros(3), 0.01).low == -math.inf


def test_controls_are_dealt_within_their_stratum_and_once() -> None:
    strata = ["a", "b"] * 100
    is_member = np.arange(200) < 4
    sets = deal(strata, is_member)
    assert sorted(sets.members.tolist()) == [0, 1, 2, 3]
    assert len(set(sets.controls.tolist())) == len(sets.controls)
    for control, owner in zip(sets.controls.tolist(), sets.owner.tolist(), strict=True):
        assert strata[control] == strata[sets.members[owner]]
    assert np.bincount(sets.owner).max() == CONTROLS_PER_MEMBER_MAX


def test_some_sets_give_the_evidence_of_their_members_alone() -> None:
    values = np.random.default_rng(6).normal(size=100)
    sets = deal(["a", "b"] * 50, pool(10, 90))
    chosen = sets.members % 2 == 0
    apart = log_evidence_exceeds(sets.among(chosen), values, 0.0)
    assert apart == pytest.approx(log_evidence(log_scores(sets, values, 0.0)[:, chosen]))
