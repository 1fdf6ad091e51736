"""Retraining in virtual time: from the drift of real recordings to a fleet that has recovered; and
runs that are killed, refused or too slow."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeloop_controller.core.retraining import Policy
from edgeloop_simulators.scenario import Annotator
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.kernel.trace import canonical
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.models.recorded_fleet import RecordedFleet, watch_fleet
from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.models.training import ScriptedTraining, ScriptedVersion
from edgeloop_simulators.virtual.seeds.explore_world import manifest_of
from edgeloop_simulators.virtual.spec.behaviour import Surroundings
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec
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

CHANGED_S, BREAKS_S, TRAINS_S, END_S = 240.0, 120.0, 60.0, 840.0
TERMS = {"soak_s": 10, "min_compared": 20, "probation": {"min_s": 10, "min_examples": 20}}
BROKEN = "watch-9b"


@dataclass
class Told:
    """What a world showed of its controller, and how right its devices were."""

    seen: list[Seen] = field(default_factory=list)
    windows: list[Seen] = field(default_factory=list)

    def __call__(self, seen: Seen) -> None:
        (self.windows if seen.what == "window" else self.seen).append(seen)

    def text(self) -> str:
        return "".join(map(canonical, self.seen + self.windows))

    def of(self, what: str) -> list[Any]:
        return [seen.data for seen in self.seen if seen.what == what]

    def at(self, what: str) -> list[float]:
        return [seen.at_s for seen in self.seen if seen.what == what]

    def accuracy(self, from_s: float, to_s: float) -> float:
        counted = [w.data for w in self.windows if from_s <= w.at_s < to_s and w.part != BROKEN]
        return sum(w["right"] for w in counted) / sum(w["count"] for w in counted)


# ---- real recordings ----------------------------------------------------------------------------


def recorded_world(fleet: RecordedFleet) -> WorldSpec:
    """Ten watches that move to the other wrist within half a minute; one gyroscope breaks."""
    policy = {
        "min_labels": 100,
        "acceptance": {"min_accuracy_gain": 0.05},
        "rollout": {"waves": ["1", "100%"], "terms": TERMS},
    }
    return WorldSpec(
        devices=tuple(
            DeviceSpec(
                stream,
                surroundings=Surroundings(
                    stream,
                    phases=((CHANGED_S, "after"),),
                    blend_s=30.0,
                    broken_sensor=(BREAKS_S, "gyroscope-x") if stream == BROKEN else None,
                ),
            )
            for stream in fleet.streams
        ),
        models=fleet.models,
        script=(Publish(1, 0), StartRollout(2, 0, waves=("100%",), terms=TERMS)),
        faults_end_s=0.0,
        duration_s=END_S,
        agent=AgentTiming(progress_s=10, window_s=20, examples_per_s=3, sample_fraction=0.06),
        controller=ControllerTiming(ingest_s=5, tick_s=15, drift_s=20, retrain_s=20),
        retraining=fleet.retraining(
            policy, annotator=Annotator(fraction=0.65, delay_s=20), duration_s=TRAINS_S
        ),
    )


def recorded_run(directory: Path) -> tuple[Outcome, Told]:
    told = Told()
    return World(recorded_world(watch_fleet(directory)), (), 1, (told,)).run(), told


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Told]:
    return recorded_run(tmp_path_factory.mktemp("fleet"))


def test_nothing_is_breached_and_every_device_runs_what_was_retrained(
    recorded: tuple[Outcome, Told],
) -> None:
    outcome, _ = recorded
    assert outcome.violations == ()
    assert Counter(outcome.champions.values()) == {"exercise@2": 10}


def test_one_broken_sensor_is_told_from_a_changed_world(recorded: tuple[Outcome, Told]) -> None:
    _, told = recorded
    fault, world = told.of("event.drift.raised")
    assert (fault["subject"], fault["cause"], fault["sensor"]) == (
        BROKEN,
        "sensor_fault",
        "gyroscope-x",
    )
    assert (world["scope"], world["cause"]) == ("fleet", "world_changed")
    first, second = told.at("event.drift.raised")
    assert BREAKS_S < first < CHANGED_S < second


def test_labels_come_late_and_then_a_run_takes_its_time(recorded: tuple[Outcome, Told]) -> None:
    _, told = recorded
    (requested,) = told.of("event.training.requested")
    assert requested["trigger"] == "drift"
    (asked_s,), (began_s,), (ended_s,) = (
        told.at(f"event.training.{what}") for what in ("requested", "started", "ended")
    )
    alarmed_s = told.at("event.drift.raised")[1]
    assert alarmed_s + 20.0 < asked_s <= began_s
    assert ended_s - began_s == TRAINS_S
    (ended,) = told.of("event.training.ended")
    assert (ended["status"], ended["version"]) == (
        "succeeded",
        {"name": "exercise", "version": "2"},
    )


def test_accuracy_falls_with_the_change_and_comes_back(recorded: tuple[Outcome, Told]) -> None:
    _, told = recorded
    before = told.accuracy(60.0, CHANGED_S)
    fallen = told.accuracy(CHANGED_S + 60.0, told.at("event.training.ended")[0])
    done_s = told.at("event.rollout.done")[-1]
    recovered = told.accuracy(done_s + 15.0, END_S)
    assert before > 0.75
    assert fallen < before - 0.15
    assert recovered > before - 0.05


def test_the_same_seed_is_the_same_world_in_another_process(
    recorded: tuple[Outcome, Told], tmp_path: Path
) -> None:
    """With another hash seed, and everything trained anew: models, digests, alarms, rollouts."""
    trace = tmp_path / "trace.txt"
    script = (
        "import importlib.util, pathlib, sys\n"
        "spec = importlib.util.spec_from_file_location('again', sys.argv[1])\n"
        "again = sys.modules['again'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(again)\n"
        "outcome, told = again.recorded_run(pathlib.Path(sys.argv[2]))\n"
        "pathlib.Path(sys.argv[3]).write_text(told.text())\n"
        "print(outcome.trace_hash)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, __file__, str(tmp_path / "fleet"), str(trace)],
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    outcome, told = recorded
    lines = zip(told.text().splitlines(), trace.read_text().splitlines(), strict=False)
    assert [pair for pair in lines if pair[0] != pair[1]][:1] == []
    assert ran.stdout.split() == [outcome.trace_hash]


# ---- scripted models ----------------------------------------------------------------------------

GOOD = ScriptedVersion(SyntheticModel(accuracy={"before": 0.95}), accuracy=0.95)
WORSE = ScriptedVersion(SyntheticModel(), accuracy=0.5, parent_accuracy=0.6)


def scripted_world(
    versions: Sequence[ScriptedVersion], tmp_path: Path, duration_s: float = TRAINS_S
) -> WorldSpec:
    artifact = b"a model that is no file"
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('never run')\n")
    policy = Policy.model_validate(
        {
            "name": "on-labels",
            "model": "vision",
            "on": ["labels"],
            "script": str(script),
            "min_labels": 20,
            "timeout_s": 90,
            "cooldown_s": 2000,
            "acceptance": {"min_examples": 5},
            "rollout": {"waves": ["100%"], "terms": TERMS},
        }
    )
    return WorldSpec(
        devices=tuple(DeviceSpec(f"device-{n}") for n in range(2)),
        models=(ModelSpec(manifest_of("vision", "1", artifact), artifact, SyntheticModel()),),
        script=(Publish(1, 0), StartRollout(2, 0, waves=("100%",), terms=TERMS)),
        faults_end_s=300.0,
        duration_s=450.0,
        agent=AgentTiming(progress_s=10, window_s=30, examples_per_s=3, sample_fraction=0.08),
        controller=ControllerTiming(ingest_s=5, tick_s=15, retrain_s=15),
        retraining=RetrainingSpec(
            policy=policy,
            training=ScriptedTraining(versions),
            truth_of=lambda device, reference: "label_1",
            annotator=Annotator(fraction=1.0, delay_s=5),
            duration_s=duration_s,
        ),
    )


def play(spec: WorldSpec, *faults: Fault) -> tuple[Outcome, Told]:
    told = Told()
    outcome = World(spec, faults, 3, (told,)).run()
    assert outcome.violations == ()
    return outcome, told


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Told]:
    return play(scripted_world([GOOD], tmp_path_factory.mktemp("scripted")))


@pytest.fixture
def unhurt(scripted: tuple[Outcome, Told]) -> Told:
    return scripted[1]


def test_a_scripted_version_is_judged_published_and_rolled_out(
    scripted: tuple[Outcome, Told],
) -> None:
    outcome, told = scripted
    assert Counter(outcome.champions.values()) == {"vision@2": 2}
    assert told.at("event.training.ended")[0] - told.at("event.training.started")[0] == TRAINS_S


@pytest.mark.parametrize("kind", [FaultKind.CONTROLLER_KILL, FaultKind.CONTROLLER_FAILOVER])
def test_a_run_that_a_kill_interrupts_is_taken_up_again(
    kind: FaultKind, unhurt: Told, tmp_path: Path
) -> None:
    spec = scripted_world([GOOD], tmp_path)
    in_its_midst = unhurt.at("event.training.started")[0] + TRAINS_S / 2
    kill = Fault(kind=kind, at_s=in_its_midst, duration_s=20.0, target="controller")
    outcome, told = play(spec, kill)
    assert len(told.at("event.training.started")) == 2
    assert told.of("event.training.interrupted")[0]["attempts"] == 1
    assert len(told.of("training.publishes")) == 1
    assert Counter(outcome.champions.values()) == {"vision@2": 2}
    assert play(spec, kill)[0].trace_hash == outcome.trace_hash


@pytest.mark.parametrize("commits", range(1, 6))
def test_a_kill_at_any_commit_of_a_run_s_end_publishes_once(
    commits: int, unhurt: Told, tmp_path: Path
) -> None:
    """Armed just before the training is over: the n-th commit or message from there on."""
    spec = scripted_world([GOOD], tmp_path)
    ends = unhurt.at("event.training.ended")[0]
    kill = Fault(
        kind=FaultKind.CONTROLLER_KILL,
        at_s=ends - 0.001,
        duration_s=20.0,
        target="controller",
        amount=float(commits),
    )
    outcome, told = play(spec, kill)
    assert len(told.at("controller.died")) == 1
    published = [event["subject"] for event in told.of("event.version.published")]
    assert published == ["vision@1", "vision@2"]
    assert Counter(outcome.champions.values()) == {"vision@2": 2}


def test_a_candidate_that_is_no_better_is_not_published(tmp_path: Path) -> None:
    outcome, told = play(scripted_world([WORSE], tmp_path))
    (ended,) = told.of("event.training.ended")
    assert ended["status"] == "rejected"
    assert "right on 50.0% of" in ended["error"]
    assert Counter(outcome.champions.values()) == {"vision@1": 2}


def test_a_run_that_takes_longer_than_its_policy_allows_fails(tmp_path: Path) -> None:
    _, told = play(scripted_world([GOOD], tmp_path, duration_s=100.0))
    (ended,) = told.of("event.training.ended")
    assert (ended["status"], "raise timeout_s" in ended["error"]) == ("failed", True)
    assert told.at("event.training.ended")[0] - told.at("event.training.started")[0] == 90.0
