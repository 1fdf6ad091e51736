"""A shadow phase in the virtual world: real agent cores, the real controller, answers of real ONNX
models by the agent's own runner code."""

from collections.abc import Sequence
from typing import Any

import pytest

from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.datasets.generator import GeneratorData
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.models.recorded import RecordedModel
from edgeloop_simulators.virtual.models.recorded_fleet import RecordedFleet, machine_fleet
from edgeloop_simulators.virtual.spec.behaviour import Surroundings
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

FIRST, PERMUTED, NAN, GOOD = range(4)
TERMS = {
    "soak_s": 5.0,
    "min_compared": 20,
    "min_watched": 0,
    "probation": {"min_s": 10.0, "min_examples": 20, "max_s": 90.0},
}
SHADOW = {"devices": 3, "min_compared": 50, "soak_s": 30.0, "deadline_s": 300.0}
BEGINS_S = 101.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> RecordedFleet:
    data = GeneratorData(machines_to_train=4, machines=5, windows=15)
    return machine_fleet(tmp_path_factory.mktemp("fleet"), data, bad=("permuted", "nan"))


def good(fleet: RecordedFleet) -> ModelSpec:
    """The first version's model under another version."""
    first = fleet.models[FIRST]
    document = first.manifest.model_dump(mode="json") | {"version": "9"}
    manifest = Manifest.model_validate(document)
    return ModelSpec(
        manifest, first.artifact, RecordedModel(manifest, first.artifact, fleet.recordings)
    )


def play(fleet: RecordedFleet, model: int, *faults: Fault) -> tuple[Outcome, list[Any], Any]:
    """The outcome, what was seen, and the second rollout's row, its members and who is challenged;
    EL-INV-16 is looked at after every commit."""
    spec = WorldSpec(
        devices=tuple(
            DeviceSpec(f"d{n}", surroundings=Surroundings(stream))
            for n, stream in enumerate(fleet.streams)
        ),
        models=(*fleet.models, good(fleet)),
        script=(
            Publish(5.0, FIRST),
            StartRollout(6.0, FIRST, waves=("100%",), terms=TERMS),
            Publish(BEGINS_S - 1, model),
            StartRollout(BEGINS_S, model, waves=("1", "100%"), terms=TERMS | {"shadow": SHADOW}),
        ),
        faults_end_s=300.0,
        duration_s=500.0,
        agent=AgentTiming(window_s=15.0, examples_per_s=2.0, heartbeat_timeout_s=20.0),
        controller=ControllerTiming(ingest_s=1.0, tick_s=5.0),
    )
    seen: list[Seen] = []
    rows: list[Any] = []

    def look(world: World) -> None:
        query = world.controller.record.query
        rows.append(query("SELECT status, verdict, shadow FROM rollouts WHERE id = 2", ())[0])
        rows.append(query("SELECT device_id FROM rollout_members WHERE rollout_id = 2", ()))
        rows.append(query("SELECT device_id FROM challenger_assignments", ()))

    outcome = World(spec, faults, 1, (seen.append,)).run(inspect=look)
    return outcome, seen, rows


def had(seen: Sequence[Any]) -> set[str]:
    """Who had a challenger at any time, as their journals named them."""
    return {one.part for one in seen if one.what == "slot.state" and "challenger" in one.data}


KILLS = [Fault(kind=FaultKind.CONTROLLER_KILL, at_s=BEGINS_S + at_s) for at_s in (1, 7, 21, 36, 52)]


@pytest.mark.parametrize("faults", [[], KILLS], ids=["lives", "killed"])
@pytest.mark.parametrize(
    ("model", "words"), [(PERMUTED, "disagrees with"), (NAN, "gives no finite answer to")]
)
def test_a_silently_bad_version_is_halted_with_nobody_exposed(
    fleet: RecordedFleet, model: int, words: str, faults: list[Fault]
) -> None:
    outcome, seen, ((status, verdict, _), members, challenged) = play(fleet, model, *faults)
    assert outcome.violations == ()
    assert status == "halted", verdict
    assert verdict.startswith("halted in shadow: activity@")
    assert words in verdict
    assert (members, challenged) == ([], [])
    assert len(had(seen)) == 3
    assert set(outcome.champions.values()) == {"activity@1"}
    answered = {one.data["version"] for one in seen if one.what == "window"}
    assert answered == {"activity@1"}


@pytest.mark.parametrize("faults", [[], KILLS], ids=["lives", "killed"])
def test_a_good_one_goes_through(fleet: RecordedFleet, faults: list[Fault]) -> None:
    outcome, seen, ((status, verdict, _), members, challenged) = play(fleet, GOOD, *faults)
    assert outcome.violations == ()
    assert status == "done", verdict
    assert (len(members), challenged) == (5, [])
    assert len(had(seen)) == 3
    assert set(outcome.champions.values()) == {"activity@9"}
