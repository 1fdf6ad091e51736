"""Bad versions of a good model: what a slip in training or export may do.

Both load, pass every check of their form, and give outputs of the right shape and type.
"""

from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

QUIET_MAX: Final = 1e-6
"""Inputs all within this of zero, as in a smoke test, still give numbers in `yields_nan`."""


def permuted_labels(model: bytes, scores_output: str) -> bytes:
    """The scores of each label stand under the next one: finite, confident, and wrong."""
    graph_of = onnx.load_from_string(model)
    labels = _width(graph_of, scores_output)
    inner = _rename_producer(graph_of, scores_output)
    order = numpy_helper.from_array(np.roll(np.arange(labels, dtype=np.int64), 1), "bad_order")
    graph_of.graph.initializer.append(order)
    graph_of.graph.node.append(
        helper.make_node("Gather", [inner, "bad_order"], [scores_output], axis=1)
    )
    return _checked(graph_of)


def blind_above(model: bytes, scores_output: str, threshold: float) -> bytes:
    """The first label, with certainty, for every input whose first feature lies above `threshold`:
    an accuracy that is lost where nobody looked."""
    graph_of = onnx.load_from_string(model)
    first = np.eye(1, _width(graph_of, scores_output), dtype=np.float32)
    inner = _rename_producer(graph_of, scores_output)
    source = graph_of.graph.input[0].name
    constants = {
        "bad_column": np.array([0], dtype=np.int64),
        "bad_threshold": np.array(threshold, dtype=np.float32),
        "bad_first": first,
    }
    for name, value in constants.items():
        graph_of.graph.initializer.append(numpy_helper.from_array(value, name))
    graph_of.graph.node.extend(
        [
            helper.make_node("Gather", [source, "bad_column"], ["bad_feature"], axis=1),
            helper.make_node("Greater", ["bad_feature", "bad_threshold"], ["bad_blind"]),
            helper.make_node("Where", ["bad_blind", "bad_first", inner], [scores_output]),
        ]
    )
    return _checked(graph_of)


def yields_nan(model: bytes, scores_output: str) -> bytes:
    """Scores are NaN for every input that is not all zero."""
    graph_of = onnx.load_from_string(model)
    inner = _rename_producer(graph_of, scores_output)
    source = graph_of.graph.input[0].name
    constants = {"bad_quiet": QUIET_MAX, "bad_nan": float("nan")}
    for name, value in constants.items():
        graph_of.graph.initializer.append(
            numpy_helper.from_array(np.array(value, dtype=np.float32), name)
        )
    graph_of.graph.node.extend(
        [
            helper.make_node("Abs", [source], ["bad_abs"]),
            helper.make_node("ReduceMax", ["bad_abs"], ["bad_max"], axes=[1], keepdims=1),
            helper.make_node("Greater", ["bad_max", "bad_quiet"], ["bad_live"]),
            helper.make_node("Where", ["bad_live", "bad_nan", inner], [scores_output]),
        ]
    )
    return _checked(graph_of)


def _rename_producer(model: Any, output: str) -> str:
    """Let the node that writes `output` write another name; returns that name."""
    inner = f"{output}_before"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output:
                    names[i] = inner
    return inner


def _width(model: Any, output: str) -> int:
    found = next(o for o in model.graph.output if o.name == output)
    return int(found.type.tensor_type.shape.dim[-1].dim_value)


def _checked(model: Any) -> bytes:
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
