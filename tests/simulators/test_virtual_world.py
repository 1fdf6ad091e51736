"""The virtual world as a whole: what its seed decides, and what faults come to in it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.seeds.explore_world import TERMS, draw_world, manifest_of
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceSpec,
    ModelSpec,
    Publish,
    StartRollout,
    WorldSpec,
)
from edgeloop_simulators.virtual.world.world import World

HASHES = """
import json
import logging
from edgeloop_simulators.virtual.seeds.explore_world import draw_world
from edgeloop_simulators.virtual.world.world import World

logging.disable(logging.CRITICAL)
worlds = [(seed, draw_world(seed)) for seed in (1, 2)]
print(json.dumps([World(w.spec, w.faults, seed).run().trace_hash for seed, w in worlds]))
"""


def hashes(hash_seed):
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_seed_decides_everything_also_under_another_hash_seed():
    assert hashes("1") == hashes("2")


def test_another_seed_is_another_world():
    drawn = draw_world(3)
    first = World(drawn.spec, drawn.faults, 3).run()
    assert first.trace_hash != World(drawn.spec, drawn.faults, 4).run().trace_hash


def small(devices=3, models=2, **changes):
    """A calm world: each version goes to all in two waves."""
    artifacts = [bytes([number]) * 4000 for number in range(1, models + 1)]
    specs = tuple(
        ModelSpec(manifest_of("pump", str(number), artifact), artifact, SyntheticModel())
        for number, artifact in enumerate(artifacts, start=1)
    )
    script = []
    for number in range(models):
        at_s = 10.0 + 150.0 * number
        script += [
            Publish(at_s, number),
            StartRollout(at_s, number, waves=("1", "100%"), terms=TERMS),
        ]
    spec = WorldSpec(
        devices=tuple(DeviceSpec(f"d{number}") for number in range(devices)),
        models=specs,
        script=tuple(script),
        faults_end_s=400.0,
        duration_s=700.0,
        agent=AgentTiming(window_s=30.0, examples_per_s=2.0, heartbeat_timeout_s=20.0),
        controller=ControllerTiming(ingest_s=1.0, tick_s=5.0),
    )
    return replace(spec, **changes)


def play(spec, *faults, until=None):
    seen = []
    outcome = World(spec, faults, 1, (seen.append,)).run(until=until)
    return outcome, seen


def test_without_faults_every_version_goes_to_every_device():
    outcome, _ = play(small())
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {"pump@2"}
    assert outcome.rollouts[2].startswith("pump@2 done")
    assert all(size > 1000 for size in outcome.bytes_up.values())
    assert all(size > 8000 for size in outcome.bytes_down.values())


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (FaultKind.MODEL_CRASH, "crashed"),
        (FaultKind.MODEL_HANG, "hung"),
        (FaultKind.MODEL_NAN, "nan or inf"),
        (FaultKind.MODEL_SLOW, "slower"),
        (FaultKind.MODEL_WRONG, "disagrees"),
    ],
)
def test_a_bad_second_version_is_stopped_and_taken_back(kind, word):
    outcome, _ = play(small(), Fault(kind=kind, at_s=0.0, amount=2))
    assert outcome.violations == ()
    assert outcome.rollouts[2].startswith("pump@2 halted")
    assert word in outcome.rollouts[2]
    assert set(outcome.champions.values()) == {"pump@1"}


@pytest.mark.parametrize("kind", [FaultKind.POWER_CUT, FaultKind.TORN_WRITE])
@pytest.mark.parametrize("operation", [0, 1, 5, 9, 14, 20, 27])
def test_a_power_cut_in_the_middle_of_an_update_is_outlived(kind, operation):
    cut = Fault(kind=kind, at_s=166.0, duration_s=60.0, target="*", amount=operation)
    outcome, seen = play(small(), cut)
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {"pump@2"}
    assert any(one.what == "device.died" for one in seen)


def test_a_controller_that_is_killed_mid_wave_ends_the_same():
    kill = Fault(
        kind=FaultKind.CONTROLLER_KILL, at_s=166.0, duration_s=40.0, target="controller", amount=3
    )
    outcome, seen = play(small(), kill)
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {"pump@2"}
    started = [one for one in seen if one.what == "controller.started"]
    assert len(started) == 2


def test_a_bit_flipped_in_a_champion_is_mended():
    flips = [
        Fault(kind=FaultKind.BIT_FLIP, at_s=250.0 + number, target="d0", amount=4)
        for number in range(5)
    ]
    kill = Fault(kind=FaultKind.PROCESS_KILL, at_s=260.0, duration_s=1.0, target="d0")
    outcome, _ = play(small(), *flips, kill)
    assert outcome.violations == ()
    assert set(outcome.champions.values()) == {"pump@2"}


def test_it_stops_where_it_is_told_to():
    outcome, seen = play(small(), until=lambda one: one.what == "runner.serving")
    assert seen[-1].what == "runner.serving"
    assert outcome.virtual_s == seen[-1].at_s < 100
