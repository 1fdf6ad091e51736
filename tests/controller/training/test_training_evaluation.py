"""A candidate beside its parent: counts, label names, and the reasons to reject."""

import numpy as np
import pytest

from edgeloop_controller.core.retraining import Acceptance
from edgeloop_controller.errors import TrainingError
from edgeloop_controller.training.dataset import HeldBack
from edgeloop_controller.training.evaluation import SubsetCount, evaluate, reason_to_reject
from edgeloop_protocol.manifest import Artifact, Evaluation, Feature, Manifest, TensorSpec


def manifest(version: str, labels: tuple[str, ...], features: str = "xy") -> Manifest:
    return Manifest(
        name="gait",
        version=version,
        artifact=Artifact(digest="a" * 64, size_bytes=1),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 2)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        scores_output="p",
        features=tuple(Feature(name=name, sensor=name) for name in features),
        labels=labels,
    )


PARENT = manifest("1", ("walk", "run"))
CANDIDATE = manifest("2", ("run", "walk"))
EXAMPLES = HeldBack(
    features=np.array([[0, 1], [0, 1], [1, 0], [1, 0]], dtype=np.float32),
    labels=("walk", "walk", "run", "walk"),
    subsets=("before", "since", "since", ""),
    recent=(False, True, True, True),
)


def run(model: bytes, inputs: np.ndarray, interface: object) -> dict[str, np.ndarray]:
    """The parent always says its first label, the candidate follows the columns."""
    if model == b"parent":
        return {"p": np.tile([0.9, 0.1], (len(inputs), 1))}
    scores = inputs.copy()
    if model == b"nan":
        scores[0] = np.nan
    return {"p": scores}


def test_counts_are_by_label_name_and_disagreement_over_recent_examples() -> None:
    found = evaluate(CANDIDATE, b"candidate", PARENT, b"parent", EXAMPLES, run=run)
    # candidate: walk walk run run; parent: walk walk walk walk
    assert found.evaluation == Evaluation(
        examples=4,
        accuracy=0.75,
        against=PARENT.ref(),
        against_accuracy=0.75,
        disagreement=2 / 3,
    )
    assert found.subsets == {"before": SubsetCount(1, 1, 1), "since": SubsetCount(2, 2, 1)}


def test_an_answer_that_is_not_finite_is_wrong_and_disagrees() -> None:
    found = evaluate(CANDIDATE, b"nan", PARENT, b"parent", EXAMPLES, run=run).evaluation
    assert found.accuracy == 0.5


def test_real_models_are_run(tmp_path) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["p"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raw = model.SerializeToString()
    found = evaluate(CANDIDATE, raw, PARENT, raw, EXAMPLES).evaluation
    assert (found.accuracy, found.against_accuracy, found.disagreement) == (0.75, 0.25, 1.0)


def test_nothing_held_back_cannot_be_judged() -> None:
    nothing = HeldBack(np.zeros((0, 2), dtype=np.float32), (), (), ())
    with pytest.raises(TrainingError, match="no labelled sample was held back"):
        evaluate(CANDIDATE, b"candidate", PARENT, b"parent", nothing, run=run)


def test_other_features_cannot_be_compared() -> None:
    other = manifest("3", ("walk", "run"), features="xz")
    with pytest.raises(TrainingError, match="not the 2 of gait@1 in the same order"):
        evaluate(other, b"candidate", PARENT, b"parent", EXAMPLES, run=run)


@pytest.mark.parametrize(
    ("accuracy", "examples", "gain", "says"),
    [
        (0.80, 50, 0.0, None),
        (0.70, 50, 0.0, None),
        (0.69, 50, 0.0, "a gain of -1.0%"),
        (0.72, 50, 0.05, "min_accuracy_gain is +5.0%"),
        (0.66, 50, -0.05, None),
        (0.90, 10, 0.0, "judged on 10 held-back examples; acceptance.min_examples is 30"),
    ],
)
def test_reasons_to_reject(accuracy: float, examples: int, gain: float, says: str | None) -> None:
    evaluation = Evaluation(
        examples=examples, accuracy=accuracy, against=PARENT.ref(), against_accuracy=0.70
    )
    reason = reason_to_reject(evaluation, Acceptance(min_accuracy_gain=gain))
    assert (reason is None) if says is None else (reason is not None and says in reason)
