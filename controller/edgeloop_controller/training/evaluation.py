"""A candidate beside its parent on held-back labelled samples, and whether that is good enough.

Invariants: both answer the same examples; labels are compared by name, so that two versions may
order them differently; models run in a child process.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgeloop_controller.core.retraining import Acceptance
from edgeloop_controller.packaging.runtime import RunModel, run_model
from edgeloop_controller.training.dataset import HeldBack
from edgeloop_protocol.manifest import Evaluation, Manifest


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
    """Raises TrainingError when there is no held-back example or a model answers nonsense."""
    raise NotImplementedError


def reason_to_reject(evaluation: Evaluation, acceptance: Acceptance) -> str | None:
    """Why the candidate is not published, in words; None: it is accepted."""
    raise NotImplementedError
