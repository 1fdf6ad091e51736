"""`make bench-rollout` in small: the same engine, models and fleets, a few seeded rollouts."""

import math

import pytest

from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_simulators.bench.rollout import SHADOW, held, summary
from edgeloop_simulators.bench.rollout_fleet import KINDS, Kind
from edgeloop_simulators.bench.rollout_gates import fixed_thresholds, installs_alone
from edgeloop_simulators.bench.rollout_models import World, make_world
from edgeloop_simulators.bench.rollout_play import Outcome, Rollout

FLEET = 400
SEEDS = range(2)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(wearers=8, good=1, weaker=4)


def played(world: World, kind: Kind) -> list[Outcome]:
    return [Rollout(world, kind, seed, RolloutTerms(), fleet=FLEET).run() for seed in SEEDS]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "good"])
def test_a_bad_version_is_halted_before_it_reaches_a_twentieth(world: World, kind: Kind) -> None:
    for outcome in played(world, kind):
        assert outcome.halted, outcome
        assert outcome.exposed <= math.ceil(0.05 * FLEET), outcome


def test_a_good_version_reaches_all(world: World) -> None:
    outcomes = played(world, "good")
    assert [outcome.halted for outcome in outcomes] == [False] * len(SEEDS)
    assert all(outcome.exposed == FLEET for outcome in outcomes)


@pytest.mark.parametrize("kind", ["good", "permuted", "crash"])
def test_what_a_shadow_phase_finds_exposes_nobody(world: World, kind: Kind) -> None:
    outcome = Rollout(world, kind, 0, RolloutTerms(shadow=SHADOW), fleet=FLEET).run()
    assert outcome.exposed == (FLEET if kind == "good" else 0), outcome
    assert outcome.halted == (kind != "good")


def test_a_seed_decides_everything(world: World) -> None:
    assert played(world, "slow") == played(world, "slow")


def test_the_other_gates_are_fooled(world: World) -> None:
    """The benchmark is able to tell: permuted labels install well; means of a few are noise."""
    blind = Rollout(world, "permuted", 0, installs_alone(), fleet=FLEET).run()
    assert not blind.halted
    assert blind.exposed == FLEET
    fixed = [
        Rollout(world, "good", seed, installs_alone(), fixed_thresholds, fleet=FLEET).run()
        for seed in SEEDS
    ]
    assert any(outcome.halted for outcome in fixed)


def test_what_is_summed_up_says_whether_the_goals_were_kept() -> None:
    def outcome(halted: bool, exposed: int) -> Outcome:
        return Outcome("slow", 100, halted, "latency", "", exposed, 2, 60.0, 3)

    found = summary([outcome(True, 5)] * 99 + [outcome(True, 25)])
    assert (found["halted"], found["within"]) == (1.0, 0.99)
    assert found["exposed_max"] == 0.25
    assert held("slow", found, 0.01)
    assert not held("slow", summary([outcome(True, 25)]), 0.01)
    assert not held("good", found, 0.01)
    assert held("good", summary([outcome(False, 100)]), 0.01)
