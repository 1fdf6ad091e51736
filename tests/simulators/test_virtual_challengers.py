"""Challengers in the virtual world: beside champions, with faults, and in nobody's way."""

import pytest

from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.seeds.explore_world import TERMS, draw_world, manifest_of
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceSpec,
    EndChallengers,
    ModelSpec,
    Publish,
    StartChallenger,
    StartRollout,
    WorldSpec,
)
from edgeloop_simulators.virtual.world.world import World

CHAMPION, RIVAL = "pump@1", "pump@2"


def spec(*steps, cpu_fraction=0.5):
    artifacts = [bytes([number]) * 4000 for number in (1, 2)]
    models = tuple(
        ModelSpec(manifest_of("pump", str(number), artifact), artifact, SyntheticModel())
        for number, artifact in enumerate(artifacts, start=1)
    )
    script = (
        Publish(5.0, 0),
        StartRollout(6.0, 0, waves=("100%",), terms=TERMS),
        Publish(100.0, 1),
        StartChallenger(101.0, 1, cpu_fraction=cpu_fraction),
        *steps,
    )
    return WorldSpec(
        devices=tuple(DeviceSpec(f"d{number}") for number in range(3)),
        models=models,
        script=script,
        faults_end_s=400.0,
        duration_s=700.0,
        agent=AgentTiming(window_s=30.0, examples_per_s=2.0, heartbeat_timeout_s=20.0),
        controller=ControllerTiming(ingest_s=1.0, tick_s=5.0),
    )


def play(world_spec, *faults):
    """The outcome, what was seen, and what the controller has of challengers at the end."""
    seen, rows = [], []

    def look(world):
        query = "SELECT SUM(count), SUM(disagreements), SUM(skipped) FROM shadow_windows"
        rows.append(world.controller.record.query(query, ())[0])

    world = World(world_spec, faults, 1, (seen.append,))
    outcome = world.run(inspect=look)
    return outcome, seen, rows[-1]


def states(seen):
    """Of each device's challenger, as its journal named them, in order."""
    told = {}
    for one in seen:
        if one.what == "slot.state" and "challenger" in one.data:
            told.setdefault(one.part, []).append(one.data["challenger"])
    return told


def test_it_is_in_every_shadow_and_every_champion_stays():
    outcome, seen, (count, disagreements, _) = play(spec())
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {CHAMPION}
    assert {told[-1] for told in states(seen).values()} == {f"{RIVAL} in_shadow"}
    assert count > 1000
    assert 0 < disagreements < count
    answered = {one.data["version"] for one in seen if one.what == "window"}
    assert answered == {CHAMPION}


def test_beyond_its_budget_it_skips():
    _, _, (count, _, skipped) = play(spec(cpu_fraction=0.0005))
    assert 0 < count < skipped


def test_taken_back_it_leaves_nothing():
    outcome, seen, _ = play(spec(EndChallengers(300.0)))
    assert outcome.violations == ()
    last = {one.part: one for one in seen if one.what == "slot.state"}
    assert not [one for one in last.values() if "challenger" in one.data]


@pytest.mark.parametrize(
    ("kind", "cause"),
    [(FaultKind.MODEL_CRASH, "runner crashed"), (FaultKind.MODEL_HANG, "runner hung")],
)
def test_a_bad_one_is_refused_and_no_champion_is_restarted(kind, cause):
    outcome, seen, _ = play(spec(), Fault(kind=kind, at_s=0.0, amount=2))
    assert outcome.violations == ()
    assert {told[-1] for told in states(seen).values()} == {f"{RIVAL} refused: {cause}"}
    starts = [one.data["version"] for one in seen if one.what == "runner.started"]
    assert starts.count(CHAMPION) == 3, "one start a device"


def test_a_challenger_that_is_rolled_out_becomes_the_champion():
    """EL-INV-15."""
    outcome, seen, _ = play(spec(StartRollout(250.0, 1, waves=("1", "100%"), terms=TERMS)))
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {RIVAL}
    assert {told[-1] for told in states(seen).values()} == {f"{RIVAL} staged"}


def test_power_cuts_and_a_dead_champion_bring_both_back():
    faults = [
        Fault(kind=kind, at_s=at_s, target=f"d{number}")
        for number, (kind, at_s) in enumerate(
            [
                (FaultKind.POWER_CUT, 200.0),
                (FaultKind.RUNNER_KILL, 200.0),
                (FaultKind.PROCESS_KILL, 200.0),
            ]
        )
    ]
    outcome, seen, _ = play(spec(), *faults)
    assert outcome.violations == ()
    for told in states(seen).values():
        assert f"{RIVAL} staged" in told[told.index(f"{RIVAL} in_shadow") :], "interrupted"
        assert told[-1] == f"{RIVAL} in_shadow"


def test_seeds_draw_them():
    drawn = [draw_world(seed).spec.script for seed in range(60)]
    challenged = sum(any(isinstance(s, StartChallenger) for s in script) for script in drawn)
    assert 10 < challenged < 35
