"""What a draft says of a model against what its file says; and the names of its features.

Invariants: a draft never wins silently over the file: where they contradict, the error names both
sides and the mend.
"""

import math
from typing import Final

import pyarrow as pa

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.draft import feature_columns
from edgeloop_controller.packaging.facts import ModelFacts
from edgeloop_protocol.manifest import ManifestDraft, TensorSpec, check_feeds

NAMES_SHOWN_MAX = 5
NUMBERS: Final = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")


def check_draft(draft: ManifestDraft, facts: ModelFacts) -> None:
    """What the draft says of the file must be what the file says."""
    if draft.runtime not in (None, facts.runtime):
        raise PackagingError(
            f"the draft says runtime {draft.runtime}, but the file is {facts.runtime}",
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
    if draft.stateful is False and facts.stateful:
        raise PackagingError(
            "the draft says that the model is not stateful, but the file keeps variables",
            "leave stateful out",
        )
    _check_inputs(draft, facts)


def _check_inputs(draft: ManifestDraft, facts: ModelFacts) -> None:
    for spec in facts.inputs:
        if spec.dtype not in NUMBERS or len(spec.shape) < 2 or spec.shape[0] not in (None, 1):
            raise PackagingError(
                f"the model's input is {tensors((spec,))}; supported are numbers of shape "
                "(batch, features) or (batch, …), the batch free or 1",
                "export it with such an input",
            )
    if len(facts.inputs) > 1 and not draft.feeds:
        tables = "\n".join(f'[[feeds]]\ninput = "{s.name}"' for s in facts.inputs)
        raise PackagingError(
            f"the model has {len(facts.inputs)} inputs ({tensors(facts.inputs)}): the draft must "
            "say what each is fed",
            f"add to model.toml, each with features, state_of or constant:\n{tables}",
        )
    try:
        named = {name for feed in draft.feeds for name in feed.features}
        check_feeds(draft.feeds, facts.inputs, facts.outputs, tuple(named))
    except ValueError as error:
        raise PackagingError(
            f"the draft's feeds: {error}",
            f"inputs: {tensors(facts.inputs)}; outputs: {tensors(facts.outputs)}",
        ) from error


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
    computed, width = draft.preprocessing.feature_names(), _width(draft, facts)
    if draft.features is not None and computed and draft.features != computed:
        raise PackagingError(
            f"the draft names features {shown(draft.features)}, but its preprocessing computes "
            f"{shown(computed)}",
            "leave features out: preprocessing names them",
        )
    columns = feature_columns(baseline_table) if baseline_table is not None else ()
    numbered = tuple(f"f{n}" for n in range(width or 0))
    fed = tuple(dict.fromkeys(name for feed in draft.feeds for name in feed.features))
    features = draft.features or computed or columns or fed or numbered
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
    _check_widths(draft, facts)
    unknown = sorted(set(draft.sensors) - set(features))
    if unknown:
        raise PackagingError(
            f"sensors are given for {shown(tuple(unknown))}, which are not features",
            f"the features are {shown(features)}",
        )
    return features


def _width(draft: ManifestDraft, facts: ModelFacts) -> int | None:
    """How many features the only input takes; None: free, or feeds say it."""
    return None if draft.feeds else _numbers_in(facts.inputs[0])


def _check_widths(draft: ManifestDraft, facts: ModelFacts) -> None:
    specs = {spec.name: spec for spec in facts.inputs}
    for feed in draft.feeds:
        width = _numbers_in(specs[feed.input])
        if feed.features and width is not None and len(feed.features) != width:
            raise PackagingError(
                f"input {feed.input!r} is fed {len(feed.features)} features, but takes {width}",
                "name one feature per number of the input",
            )


def _numbers_in(spec: TensorSpec) -> int | None:
    """Of one example; None where a dimension is free."""
    inner = [size for size in spec.shape[1:] if size is not None]
    return math.prod(inner) if len(inner) == len(spec.shape) - 1 else None


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
