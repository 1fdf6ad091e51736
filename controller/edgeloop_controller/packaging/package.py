"""One model file and what a person wrote about it -> the manifest of a version.

Invariants: the draft agrees with the file (`agreement`); the model has run, and has answered with
finite numbers, before it is packaged.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.agreement import (
    check_draft,
    feature_names_of,
    sensor_of,
    shown,
    tensors,
)
from edgeloop_controller.packaging.baseline import make_baseline
from edgeloop_controller.packaging.calibration import calibrate
from edgeloop_controller.packaging.draft import (
    BaselineTable,
    baseline_rows,
    draft_like,
    load_draft,
    read_baseline,
)
from edgeloop_controller.packaging.facts import ModelFacts
from edgeloop_controller.packaging.golden import spread_rows, synthetic_rows
from edgeloop_controller.packaging.interface import Interface
from edgeloop_controller.packaging.introspect import introspect
from edgeloop_controller.packaging.runtime import Outputs, RunModel, run_model
from edgeloop_protocol.errors import first_problem
from edgeloop_protocol.feeding import BINARY_LABELS, per_label
from edgeloop_protocol.manifest import (
    Artifact,
    Evaluation,
    Feature,
    Golden,
    Lineage,
    Manifest,
    ManifestDraft,
)

__all__ = ["draft_like", "load_draft", "package", "read_baseline"]

Floats = NDArray[np.float32]

Run = Callable[[Floats], Outputs]
"""The model on feature vectors, from a fresh state."""

GOLDEN_TOLERANCE: Final = 1e-3
STEPS_APART: Final = 16.0
"""XNNPACK's kernels and TFLite's own lay up to 12 steps apart on a streaming model."""

FLOAT_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class _Trial:
    """What the model answered: `scores` (n, labels) for `inputs` (n, features)."""

    inputs: Floats
    scores: NDArray[np.float64]
    scores_output: str
    tolerance: float
    """Of golden examples: kernels for other processors may round a quantised score elsewhere."""


def package(
    model: bytes,
    name: str,
    version: str,
    draft: ManifestDraft,
    baseline_table: pa.Table | None = None,
    *,
    lineage: Lineage | None = None,
    evaluation: Evaluation | None = None,
    run: RunModel = run_model,
) -> Manifest:
    """Check, fill in and freeze. Raises PackagingError.

    `baseline_table`: one column per feature, named as the features; optional `group` (who or what
    the row came from: thresholds are calibrated by leaving groups out; rows in time order within a
    group) and `label`. Without it the version has no baseline and its drift is not watched.
    """
    facts = introspect(model)
    check_draft(draft, facts)
    features = feature_names_of(draft, facts, baseline_table)
    rows = baseline_rows(baseline_table, features) if baseline_table is not None else None
    interface = Interface(
        runtime=facts.runtime,
        inputs=facts.inputs,
        outputs=facts.outputs,
        feeds=draft.feeds,
        features=features,
        stateful=_stateful(draft, facts),
    )

    def answers(inputs: Floats) -> Outputs:
        return run(model, inputs, interface)

    trial = _try(draft, facts, rows, len(features), answers)
    labels = draft.labels or tuple(str(n) for n in range(trial.scores.shape[1]))
    if len(labels) != trial.scores.shape[1]:
        raise PackagingError(
            f"the draft names {len(labels)} labels ({shown(labels)}), but the model's output "
            f"{trial.scores_output!r} gives {trial.scores.shape[1]} scores",
            "name one label per score, in the order of the scores",
        )
    try:
        manifest = Manifest(
            name=name,
            version=version,
            description=draft.description,
            artifact=Artifact(
                digest=hashlib.sha256(model).hexdigest(),
                size_bytes=len(model),
                runtime=facts.runtime,
                opset=facts.opset,
                ir_version=facts.ir_version,
                operators=facts.operators,
            ),
            inputs=facts.inputs,
            outputs=facts.outputs,
            scores_output=trial.scores_output,
            feeds=draft.feeds,
            stateful=interface.stateful,
            preprocessing=draft.preprocessing,
            features=tuple(Feature(name=f, sensor=sensor_of(draft, f)) for f in features),
            labels=labels,
            requires=draft.requires,
            golden=_golden(draft, trial, interface.stateful, answers),
            evaluation=evaluation,
            lineage=_lineage(lineage, draft),
        )
        return _with_baseline(manifest, rows, trial)
    except ValidationError as error:
        raise PackagingError(f"{name}@{version}: {first_problem(error)}") from error


def _stateful(draft: ManifestDraft, facts: ModelFacts) -> bool:
    fed_state = any(feed.state_of is not None for feed in draft.feeds)
    return bool(draft.stateful) or facts.stateful or fed_state


def _try(
    draft: ManifestDraft,
    facts: ModelFacts,
    rows: BaselineTable | None,
    width: int,
    run: Run,
) -> _Trial:
    """Run the model on the baseline's rows, or on made-up ones where there is none."""
    inputs = rows.features if rows is not None else synthetic_rows(width)
    outputs = run(inputs)
    name = _scores_output(draft, facts, outputs)
    scores = _scores(outputs[name], draft)
    finite = np.isfinite(scores).all(axis=1)
    if not finite.any() or (rows is not None and not finite.all()):
        raise PackagingError(
            f"the model's output {name!r} has NaN or Inf for {int((~finite).sum())} of "
            f"{len(inputs)} {'baseline rows' if rows is not None else 'made-up inputs'}",
            "a model must answer its own training data with finite scores",
        )
    return _Trial(inputs[finite], scores[finite], name, _tolerance(facts, name))


def _tolerance(facts: ModelFacts, scores_output: str) -> float:
    (steps,) = (s.quantisation for s in facts.outputs if s.name == scores_output)
    return GOLDEN_TOLERANCE if steps is None else max(GOLDEN_TOLERANCE, STEPS_APART * steps.scale)


def _scores(output: NDArray[np.generic], draft: ManifestDraft) -> NDArray[np.float64]:
    """(n, labels); a single one, unless it is drafted to be of one label, is of two."""
    labels = len(draft.labels) if draft.labels is not None else BINARY_LABELS
    return per_label(np.asarray(output, dtype=np.float64), labels)


def _scores_output(draft: ManifestDraft, facts: ModelFacts, outputs: Outputs) -> str:
    """The output with one score per label: as drafted, or the only one that can be it."""
    states = {feed.state_of for feed in draft.feeds}
    fitting = [
        spec.name
        for spec in facts.outputs
        if (spec.dtype in FLOAT_DTYPES or spec.quantisation is not None)
        and spec.name in outputs
        and outputs[spec.name].ndim == 2
        and spec.name not in states
    ]
    if draft.scores_output is not None:
        if draft.scores_output not in fitting:
            raise PackagingError(
                f"the draft says scores_output {draft.scores_output!r}, but the file's outputs "
                f"are {tensors(facts.outputs)}",
                f"it must be a float output of shape (batch, labels): {shown(tuple(fitting))}",
            )
        return draft.scores_output
    if len(fitting) != 1:
        raise PackagingError(
            f"the model has {len(fitting)} float outputs of shape (batch, labels) among "
            f"{tensors(facts.outputs)}: one must be told to hold the scores",
            "set scores_output in the draft",
        )
    return fitting[0]


def _golden(draft: ManifestDraft, trial: _Trial, stateful: bool, run: Run) -> Golden:
    """The drafted examples, which the model must reproduce; else some that are far apart: of a
    model with a state, as one sequence from its beginning."""
    if draft.golden is None:
        chosen = spread_rows(trial.inputs)
        inputs, scores = trial.inputs[chosen], trial.scores[chosen]
        if stateful:
            scores = _scores(run(inputs)[trial.scores_output], draft)
        return Golden(
            inputs=tuple(tuple(map(float, row)) for row in inputs),
            outputs=tuple(tuple(map(float, row)) for row in scores),
            tolerance=trial.tolerance,
        )
    golden = draft.golden
    widths = {len(row) for row in golden.inputs}, {len(row) for row in golden.outputs}
    expected = {trial.inputs.shape[1]}, {trial.scores.shape[1]}
    if golden.inputs and widths != expected:
        raise PackagingError(
            f"the draft's golden inputs and outputs have {widths[0]} and {widths[1]} numbers, but "
            f"the model takes {expected[0]} and gives {expected[1]}"
        )
    if golden.inputs:
        found = _scores(run(np.array(golden.inputs, dtype=np.float32))[trial.scores_output], draft)
        apart = float(np.abs(found - np.array(golden.outputs)).max())
        if not apart <= golden.tolerance:
            raise PackagingError(
                f"the model's answers lie {apart:g} from the draft's golden outputs; its "
                f"tolerance is {golden.tolerance:g}",
                "publish the file that was meant, or leave golden out",
            )
    return golden


def _with_baseline(manifest: Manifest, rows: BaselineTable | None, trial: _Trial) -> Manifest:
    if rows is None:
        return manifest
    thresholds = (
        calibrate(rows.features, rows.groups, rows.labels, manifest)
        if rows.groups is not None
        else None
    )
    baseline = make_baseline(rows.features, trial.scores, thresholds)
    return manifest.model_copy(update={"baseline": baseline})


def _lineage(lineage: Lineage | None, draft: ManifestDraft) -> Lineage:
    found = lineage or Lineage()
    return found.model_copy(update={"note": draft.note}) if draft.note else found
