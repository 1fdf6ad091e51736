"""Small real ONNX models, built by hand."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

MakeModel = Callable[..., bytes]


def build_model(
    features: int = 4,
    labels: int = 3,
    *,
    opset: int = 17,
    scale: float = 1.0,
    dtype: int = TensorProto.FLOAT,
    rows: int | str = "n",
) -> bytes:
    """Gemm and Softmax with fixed weights; `scale` multiplies them."""
    rng = np.random.default_rng(1)
    weights = (scale * rng.normal(size=(features, labels))).astype(np.float32)
    bias = np.zeros(labels, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", dtype, [rows, features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [rows, labels])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model.SerializeToString()


@pytest.fixture
def make_model() -> MakeModel:
    return build_model


@pytest.fixture
def edit_model() -> Callable[[bytes, Callable[[onnx.ModelProto], None]], bytes]:
    def edit(model: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
        proto = onnx.load_model_from_string(model)
        change(proto)
        return proto.SerializeToString()

    return edit
