"""A candidate beside its parent on held-back labelled samples, and whether that is good enough.

Invariants: both answer the same examples; labels are compared by name, so that two versions may
order them differently; models run in a child process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop_controller.core.retraining import Acceptance
from edgeloop_controller.errors import TrainingError
from edgeloop_controller.packaging.interface import Interface
from edgeloop_controller.packaging.runtime import RunModel, run_model
from edgeloop_controller.training.dataset import HeldBack
from edgeloop_protocol.feeding import per_label
from edgeloop_protocol.manifest import Evaluation, Manifest
from edgeloop_protocol.scoring import answers


@dataclass(frozen=True)
class SubsetCount:
    examples: int
    candidate_correct: int
    parent_correct: int


@dataclass(frozen=True)
class Comparison:
    """`evaluation` goes into the candidate's manifest; `subsets` into the run's result."""

    evaluation: Evaluation
    subsets: Mapping[str, SubsetCount]


def evaluate(
    candidate: Manifest,
    candidate_model: bytes,
    parent: Manifest,
    parent_model: bytes,
    examples: HeldBack,
    *,
    run: RunModel = run_model,
) -> Comparison:
    """Raises TrainingError when there is no held-back example or the two cannot be compared.

    Accuracy is over all examples; disagreement over the recent ones (all, where none is recent).
    An answer that is not finite is wrong, and disagrees.
    """
    if not examples.labels:
        raise TrainingError(
            "no labelled sample was held back: the candidate cannot be judged",
            "label more samples, or raise acceptance.held_back_fraction",
        )
    _check_comparable(candidate, parent)
    new = _answers(candidate, candidate_model, examples, run)
    old = _answers(parent, parent_model, examples, run)
    new_right = [a == label for a, label in zip(new, examples.labels, strict=True)]
    old_right = [a == label for a, label in zip(old, examples.labels, strict=True)]
    differ = [a is None or a != b for a, b in zip(new, old, strict=True)]
    recent = [d for d, is_recent in zip(differ, examples.recent, strict=True) if is_recent]
    evaluation = Evaluation(
        examples=len(examples.labels),
        accuracy=sum(new_right) / len(new_right),
        against=parent.ref(),
        against_accuracy=sum(old_right) / len(old_right),
        disagreement=sum(recent or differ) / len(recent or differ),
    )
    return Comparison(evaluation, _by_subset(examples.subsets, new_right, old_right))


def reason_to_reject(evaluation: Evaluation, acceptance: Acceptance) -> str | None:
    """Why the candidate is not published, in words; None: it is accepted."""
    if evaluation.examples < acceptance.min_examples:
        return (
            f"judged on {evaluation.examples} held-back examples; "
            f"acceptance.min_examples is {acceptance.min_examples}"
        )
    if evaluation.against_accuracy is None:
        return None
    gain = evaluation.accuracy - evaluation.against_accuracy
    if gain < acceptance.min_accuracy_gain:
        return (
            f"right on {evaluation.accuracy:.1%} of {evaluation.examples} held-back examples, "
            f"{evaluation.against} on {evaluation.against_accuracy:.1%}: a gain of {gain:+.1%}; "
            f"acceptance.min_accuracy_gain is {acceptance.min_accuracy_gain:+.1%}"
        )
    return None


def _check_comparable(candidate: Manifest, parent: Manifest) -> None:
    new = [feature.name for feature in candidate.features]
    old = [feature.name for feature in parent.features]
    if new != old:
        raise TrainingError(
            f"the candidate has {len(new)} features, not the {len(old)} of {parent.ref()} in the "
            "same order: the held-back samples cannot be given to both",
            "keep the parent's features, or publish the new model by hand",
        )


def _answers(
    manifest: Manifest, model: bytes, examples: HeldBack, run: RunModel
) -> list[str | None]:
    """The label's name for each example; None where the scores are not finite."""
    outputs = run(model, examples.features, Interface.of(manifest))
    scores = per_label(
        np.asarray(outputs[manifest.scores_output], dtype=np.float64), len(manifest.labels)
    )
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    indices, _ = answers(np.where(finite[:, None], scores, 0.0))
    return [
        manifest.labels[index] if known else None
        for index, known in zip(indices, finite, strict=True)
    ]


def _by_subset(
    subsets: Sequence[str], new_right: Sequence[bool], old_right: Sequence[bool]
) -> Mapping[str, SubsetCount]:
    """Only named subsets are counted."""
    counts: dict[str, SubsetCount] = {}
    for subset, new, old in zip(subsets, new_right, old_right, strict=True):
        if subset:
            before = counts.get(subset, SubsetCount(0, 0, 0))
            counts[subset] = SubsetCount(
                before.examples + 1,
                before.candidate_correct + new,
                before.parent_correct + old,
            )
    return counts
