"""What a recorded behaviour says of a window is what the real runner's code says of it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_agent.runner.inference import Answer, Inference
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.window import SketchSet, Window
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.manifest import Binned
from edgeloop_simulators.datasets.generator import GeneratorData
from edgeloop_simulators.datasets.windows import Window as Example
from edgeloop_simulators.virtual.models.recorded import RecordedModel, draw
from edgeloop_simulators.virtual.models.recorded_fleet import RecordedFleet, machine_fleet
from edgeloop_simulators.virtual.models.recordings import Recordings, Scene, as_seen
from edgeloop_simulators.virtual.spec.behaviour import Surroundings
from edgeloop_simulators.virtual.spec.world import ModelSpec

MACHINES = GeneratorData(machines_to_train=4, machines=3, windows=6)
GOOD, PERMUTED, NAN, BLIND = range(4)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> RecordedFleet:
    return machine_fleet(tmp_path_factory.mktemp("f"), MACHINES, bad=("permuted", "nan", "blind"))


def loaded(model: ModelSpec, directory: Path) -> Model:
    """As the runner's process loads a version."""
    manifest, content = directory / "manifest.json", directory / "model.onnx"
    manifest.write_bytes(model.manifest.canonical())
    content.write_bytes(model.artifact)
    return Model(
        ModelFiles(
            version=model.manifest.ref(), manifest_path=str(manifest), model_path=str(content)
        )
    )


def by_the_runner(
    model: ModelSpec, shadow: ModelSpec | None, values: list[Any], directory: Path
) -> Any:
    """The summary of these examples by the runner's own inference and window, as `serving` does."""
    own = loaded(model, directory)
    inference = Inference(own, loaded(shadow, directory) if shadow else None)
    window = Window(model.manifest, SketchSet(len(model.manifest.features)), 0.0)
    for one in values:
        answer = inference.answer(one)
        if not isinstance(answer, Answer):
            window.gave_nonfinite() if answer.nonfinite else window.errored()
            continue
        window.answered(answer.features, answer.label, answer.confidence)
        if answer.compared:
            window.compared(answer.shadow_label == answer.label)
    ref = shadow.manifest.ref() if shadow else None
    return window.summary("main", model.manifest.ref(), 1.0, 0, ref, None)


@pytest.mark.parametrize("which", [GOOD, PERMUTED, NAN, BLIND])
@pytest.mark.parametrize(
    "seen",
    [
        Surroundings("machine-2"),
        Surroundings("machine-2", phases=((0.0, "after"),)),
        Surroundings("machine-1", broken_sensor=(0.0, "thermometer")),
        Surroundings("machine-1", swapped_sensors=(0.0, "accelerometer-x", "accelerometer-y")),
    ],
)
def test_a_window_is_what_the_runner_counts(
    fleet: RecordedFleet, which: int, seen: Surroundings, tmp_path: Path
) -> None:
    model, first = fleet.models[which], fleet.models[GOOD]
    scene = Scene(
        seen.stream,
        seen.phase(9.0),
        seen.broken_sensor[1] if seen.broken_sensor else None,
        seen.swapped_sensors[1:] if seen.swapped_sensors else (),
    )
    windows = fleet.recordings.windows(scene)
    rows = draw(len(windows), 150, random.Random(5))
    values = [as_seen(windows[row].values, scene, model.manifest) for row in rows]
    expected = by_the_runner(model, first, values, tmp_path)

    answers = model.behaviour.answer(seen, 9.0, 150, first.behaviour, random.Random(5))
    told = (answers.count, answers.errors, answers.nonfinite)
    assert told == (expected.count, expected.errors, expected.nonfinite)
    assert sum(told) == 150
    assert answers.predictions == expected.predictions
    assert answers.confidence == expected.confidence
    assert answers.features == expected.features
    disagreements = expected.comparison.disagreements if expected.comparison else 0
    assert answers.disagreements == disagreements


def test_a_value_on_an_edge_is_in_the_runner_s_bin(fleet: RecordedFleet, tmp_path: Path) -> None:
    """Edges are quantiles of data, so that values do lie on them; here every second one does."""
    good, scene = fleet.models[GOOD], Scene("machine-1", "before")
    table = fleet.models[GOOD].behaviour.table(scene)
    baseline = good.manifest.baseline
    assert baseline is not None
    columns = [*table.features.T, table.confidences]
    binned = [
        Binned(edges=edges, shares=(1 / (len(edges) + 1),) * (len(edges) + 1))
        for edges in (tuple(np.unique(column)[::2][:15].tolist()) for column in columns)
    ]
    on_edges = baseline.model_copy(
        update={"features": tuple(binned[:-1]), "confidence": binned[-1]}
    )
    manifest = good.manifest.model_copy(update={"baseline": on_edges})
    behaviour = RecordedModel(manifest, good.artifact, fleet.recordings)
    model = ModelSpec(manifest, good.artifact, behaviour)
    windows = fleet.recordings.windows(scene)
    rows = draw(len(windows), 100, random.Random(2))
    expected = by_the_runner(model, None, [windows[row].values for row in rows], tmp_path)
    answers = behaviour.answer(Surroundings("machine-1"), 0.0, 100, None, random.Random(2))
    assert (answers.features, answers.confidence) == (expected.features, expected.confidence)


def test_a_shadow_that_gives_nan_is_not_compared(fleet: RecordedFleet, tmp_path: Path) -> None:
    good, nan = fleet.models[GOOD], fleet.models[NAN]
    windows = fleet.recordings.windows(Scene("machine-1", "before"))
    expected = by_the_runner(good, nan, [window.values for window in windows[:9]], tmp_path)
    assert expected.comparison is None
    seen = Surroundings("machine-1")
    answers = good.behaviour.answer(seen, 0.0, 50, nan.behaviour, random.Random(0))
    assert (answers.count, answers.disagreements) == (50, 0)


def test_examples_that_give_no_features_are_errors(fleet: RecordedFleet) -> None:
    """Values too large for float32 are the source's fault: counted, not answered."""
    good = fleet.models[GOOD]
    huge = Example("r0:0-50", "idle", "0", np.full((50, 4), 3e38, dtype=np.float32))
    model = RecordedModel(good.manifest, good.artifact, Recordings({"s": {"before": [huge]}}))
    answers = model.answer(Surroundings("s"), 0.0, 40, None, random.Random(0))
    assert (answers.count, answers.errors, answers.nonfinite, answers.right) == (0, 40, 0, 0)
    assert model.sample(Surroundings("s"), 0.0, None, random.Random(0)) is None


def test_right_is_the_recorded_truth(fleet: RecordedFleet) -> None:
    model, recordings = fleet.models[GOOD].behaviour, fleet.recordings
    seen = Surroundings("machine-3")
    for seed in range(20):
        sampled = model.sample(seen, 0.0, None, random.Random(seed))
        assert sampled is not None
        label = fleet.models[GOOD].manifest.labels[sampled.prediction]
        right = model.answer(seen, 0.0, 1, None, random.Random(seed)).right
        assert right == (label == recordings.label_of("any", sampled.reference))


def test_a_version_that_gives_nan_is_never_sampled(fleet: RecordedFleet) -> None:
    model = fleet.models[NAN].behaviour
    assert model.sample(Surroundings("machine-1"), 0.0, None, random.Random(0)) is None


def test_the_self_test_is_the_runner_s(fleet: RecordedFleet) -> None:
    assert [model.behaviour.self_test_problem("x86_64") for model in fleet.models] == [""] * 4
    good, other = fleet.models[GOOD], fleet.models[PERMUTED]
    golden = good.manifest.model_copy(
        update={"artifact": other.manifest.artifact, "golden": good.manifest.golden}
    )
    spoilt = RecordedModel(golden, other.artifact, fleet.recordings)
    assert "golden input 0: off by" in spoilt.self_test_problem("x86_64")
    torn = RecordedModel(good.manifest, b"not a model", fleet.recordings)
    assert "digest mismatch" in torn.self_test_problem("x86_64")
