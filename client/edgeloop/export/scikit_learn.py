"""A fitted scikit-learn classifier or pipeline to ONNX, by skl2onnx.

Invariants: the file has one input `x`, float32 (n, features), and one output, the probabilities in
the order of `classes_`; the same estimator gives the same bytes.
"""

from typing import Any, Final

from edgeloop.errors import ModelError
from edgeloop.export.exported import Exported
from edgeloop.extras import require

OPSET: Final = 17
"""As old as runtimes on devices are; a classifier needs no newer one."""
DOING: Final = "publishing a scikit-learn estimator"


def export_estimator(estimator: Any) -> Exported:
    """Raises ModelError, and MissingExtraError."""
    kind = type(estimator).__name__
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not hasattr(estimator, "predict_proba"):
        raise ModelError(
            f"{kind} has no predict_proba: Edgeloop's models answer with a score for each label",
            "publish a classifier; SVC needs probability=True",
        )
    if not hasattr(estimator, "n_features_in_") or not hasattr(estimator, "classes_"):
        raise ModelError(f"{kind} is not fitted", "call fit first")
    draft: dict[str, Any] = {"labels": [str(label) for label in estimator.classes_]}
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        draft["features"] = [str(name) for name in names]
    return Exported(_convert(estimator, kind), draft)


def _convert(estimator: Any, kind: str) -> bytes:
    skl2onnx = require("skl2onnx", "sklearn", DOING)
    types = require("skl2onnx.common.data_types", "sklearn", DOING)
    graphs = require("skl2onnx.helpers.onnx_helper", "sklearn", DOING)
    try:
        model = skl2onnx.to_onnx(
            estimator,
            initial_types=[("x", types.FloatTensorType([None, estimator.n_features_in_]))],
            options={id(estimator): {"zipmap": False}},
            target_opset=OPSET,
        )
    except Exception as error:  # whatever a converter of some step raises
        raise ModelError(
            f"skl2onnx cannot convert {kind}: {error}",
            "its input is one matrix of float32 features; see skl2onnx's list of what it supports",
        ) from error
    probabilities = model.graph.output[-1]
    reduced = graphs.select_model_inputs_outputs(model, outputs=[probabilities.name])
    reduced.graph.output[0].CopyFrom(probabilities)  # with its type, which was lost
    return bytes(reduced.SerializeToString())
