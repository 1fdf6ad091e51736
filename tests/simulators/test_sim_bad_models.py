"""Bad versions: right in form, wrong in substance."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeloop_simulators.bad_models import blind_above, permuted_labels, yields_nan


@pytest.fixture(scope="module")
def model() -> bytes:
    """Softmax of the input itself, with a first output beside it, as scikit-learn's have."""
    graph = helper.make_graph(
        [
            helper.make_node("Softmax", ["x"], ["scores"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3]),
        ],
        [numpy_helper.from_array(np.zeros(1, dtype=np.float32), "unused")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def scores(model: bytes, x: list[list[float]]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model)
    return session.run(["scores"], {"x": np.array(x, dtype=np.float32)})[0]


EXAMPLES = [[1.0, 5.0, 2.0], [9.0, 0.0, -1.0]]


def test_a_permuted_one_is_as_confident_and_always_wrong(model: bytes) -> None:
    good, bad = scores(model, EXAMPLES), scores(permuted_labels(model, "scores"), EXAMPLES)
    assert np.allclose(np.sort(good, axis=1), np.sort(bad, axis=1))
    assert not (good.argmax(axis=1) == bad.argmax(axis=1)).any()


def test_one_yields_nan_on_whatever_is_not_all_zero(model: bytes) -> None:
    bad = yields_nan(model, "scores")
    assert np.isnan(scores(bad, EXAMPLES)).all()
    assert np.isfinite(scores(bad, [[0.0, 0.0, 0.0]])).all()


def test_a_blind_one_is_good_up_to_its_threshold(model: bytes) -> None:
    good, bad = scores(model, EXAMPLES), scores(blind_above(model, "scores", 5.0), EXAMPLES)
    assert (bad[0] == good[0]).all()
    assert bad[1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "spoil", [permuted_labels, yields_nan, lambda m, output: blind_above(m, output, 1.0)]
)
def test_the_form_stays(model: bytes, spoil) -> None:
    before, after = onnx.load_from_string(model), onnx.load_from_string(spoil(model, "scores"))
    assert before.graph.output == after.graph.output
    assert before.graph.input == after.graph.input
