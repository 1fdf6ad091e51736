"""A torch.nn.Module to ONNX, by whichever exporter its PyTorch has.

Invariants: the file has one input `x`, float32 (n, features) with any n, and one output `scores`;
all weights are inside, and no path of this machine; the module is left in the mode that it was in.
"""

import importlib.util
import inspect
import io
from contextlib import redirect_stdout
from typing import Any, Final

from edgeloop.errors import ModelError
from edgeloop.example import Example
from edgeloop.export.exported import Exported
from edgeloop.extras import require

TORCHSCRIPT_OPSET: Final = 17
"""The newest that PyTorch 1.13 writes."""
DYNAMO_OPSET: Final = 18
"""The oldest that the exporter by dynamo writes."""


def export_module(module: Any, example: Example | None) -> Exported:
    """Raises ModelError, and MissingExtraError."""
    torch = require("torch", "torch", "publishing a PyTorch module")
    kind = type(module).__name__
    if example is None:
        raise ModelError(
            f"{kind}: a PyTorch module does not say what its input looks like",
            "give `example`: rows of shape (n, features), as it was trained on",
        )
    inputs = torch.from_numpy(example.rows[:2].repeat(2, axis=0)[:2].copy())
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            _check(torch, module(inputs), kind)
        content = _export(torch, module, inputs)
    except ModelError:
        raise
    except Exception as error:  # whatever a module or an exporter raises
        raise ModelError(
            f"torch.onnx.export cannot convert {kind}: {type(error).__name__}: {error}",
            "its forward takes one float32 tensor of shape (n, features); for any other, export it "
            "yourself and publish the file with a `manifest`",
        ) from error
    finally:
        module.train(was_training)
    return Exported(content, {"scores_output": "scores"})


def _check(torch: Any, scores: Any, kind: str) -> None:
    if not isinstance(scores, torch.Tensor) or scores.ndim != 2 or scores.shape[0] != 2:
        shape = getattr(scores, "shape", type(scores).__name__)
        raise ModelError(
            f"{kind} answers 2 rows with {shape}", "answer with scores of shape (n, labels)"
        )


def _export(torch: Any, module: Any, inputs: Any) -> bytes:
    takes = inspect.signature(torch.onnx.export).parameters
    with redirect_stdout(io.StringIO()):  # both exporters tell of their steps
        if "dynamo" in takes and importlib.util.find_spec("onnxscript"):
            return _by_dynamo(torch, module, inputs)
        return _by_torchscript(torch, module, inputs, takes)


def _by_dynamo(torch: Any, module: Any, inputs: Any) -> bytes:
    program = torch.onnx.export(
        module,
        (inputs,),
        dynamo=True,
        input_names=["x"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=DYNAMO_OPSET,
        verbose=False,
    )
    return _without_traces(program.model_proto)


def _without_traces(model: Any) -> bytes:
    """Each node carries where in which file of this machine it came from: that goes nowhere."""
    for graph in (model.graph, *model.functions):
        for part in (*graph.node, *graph.value_info):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    return bytes(model.SerializeToString())


def _by_torchscript(torch: Any, module: Any, inputs: Any, takes: Any) -> bytes:
    file = io.BytesIO()
    torch.onnx.export(
        module,
        (inputs,),
        file,
        input_names=["x"],
        output_names=["scores"],
        dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
        opset_version=TORCHSCRIPT_OPSET,
        **({"dynamo": False} if "dynamo" in takes else {}),
    )
    return file.getvalue()
