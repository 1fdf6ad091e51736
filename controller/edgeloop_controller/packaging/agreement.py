"""What a draft says of a model against what its file says; and the names of its features.

Invariants: a draft never wins silently over the file: where they contradict, the error names both
sides and the mend.
"""

import pyarrow as pa

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.draft import feature_columns
from edgeloop_controller.packaging.introspect import ModelFacts
from edgeloop_protocol.manifest import ManifestDraft, TensorSpec

NAMES_SHOWN_MAX = 5


def check_draft(draft: ManifestDraft, facts: ModelFacts) -> None:
    """What the draft says of the file must be what the file says."""
    if draft.runtime not in (None, "onnx"):
        raise PackagingError(
            f"the draft says runtime {draft.runtime}, but the file is ONNX",
            "leave runtime out, or publish the file that was meant",
        )
    if draft.opset is not None and draft.opset != facts.opset:
        raise PackagingError(
            f"the draft says opset {draft.opset}, but the file has opset {facts.opset}",
            "leave opset out, or publish the file that was meant",
        )
    sides = (("inputs", draft.inputs, facts.inputs), ("outputs", draft.outputs, facts.outputs))
    for what, drafted, found in sides:
        if drafted is not None and not _agree(drafted, found):
            raise PackagingError(
                f"the draft says {what} {tensors(drafted)}, but the file has {tensors(found)}",
                f"leave {what} out, or publish the file that was meant",
            )
    (input_,) = facts.inputs
    if input_.dtype != "float32" or len(input_.shape) != 2 or input_.shape[0] not in (None, 1):
        raise PackagingError(
            f"the model's input is {tensors(facts.inputs)}; supported is float32 of shape "
            "(batch, features), the batch free or 1",
            "export it with such an input",
        )


def _agree(drafted: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> bool:
    """Same names, types and ranks, and the same sizes where both give one."""
    return len(drafted) == len(found) and all(
        (one.name, one.dtype, len(one.shape)) == (other.name, other.dtype, len(other.shape))
        and all(a == b or None in (a, b) for a, b in zip(one.shape, other.shape, strict=True))
        for one, other in zip(drafted, found, strict=True)
    )


def feature_names_of(
    draft: ManifestDraft, facts: ModelFacts, baseline_table: pa.Table | None
) -> tuple[str, ...]:
    """The features' names: the draft's, the preprocessing's, the baseline's, or f0, f1, …"""
    computed, width = draft.preprocessing.feature_names(), facts.inputs[0].shape[1]
    if draft.features is not None and computed and draft.features != computed:
        raise PackagingError(
            f"the draft names features {shown(draft.features)}, but its preprocessing computes "
            f"{shown(computed)}",
            "leave features out: preprocessing names them",
        )
    columns = feature_columns(baseline_table) if baseline_table is not None else ()
    numbered = tuple(f"f{n}" for n in range(width or 0))
    features = draft.features or computed or columns or numbered
    if not features:
        raise PackagingError(
            "the model's input has no fixed width and nothing names its features",
            "name the features in the draft, or give a baseline",
        )
    if width is not None and len(features) != width:
        raise PackagingError(
            f"there are {len(features)} features ({shown(features)}), but the model's input "
            f"{facts.inputs[0].name!r} takes {width}",
            "name one feature per input column",
        )
    unknown = sorted(set(draft.sensors) - set(features))
    if unknown:
        raise PackagingError(
            f"sensors are given for {shown(tuple(unknown))}, which are not features",
            f"the features are {shown(features)}",
        )
    return features


def sensor_of(draft: ManifestDraft, feature: str) -> str:
    """The drafted one; else the channel that the feature is a statistic of; else the feature."""
    if feature in draft.sensors:
        return draft.sensors[feature]
    preprocessing = draft.preprocessing
    for channel in preprocessing.channels:
        if feature in {f"{channel}_{statistic}" for statistic in preprocessing.statistics}:
            return channel
    return feature


def tensors(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(
        f"{s.name} {s.dtype}({', '.join('?' if d is None else str(d) for d in s.shape)})"
        for s in specs
    )


def shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return ", ".join(names[:NAMES_SHOWN_MAX]) + more
