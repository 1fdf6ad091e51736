"""The gates of a rollout: whether what a version did on its devices forbids going on.

Invariants: a verdict states its figures in words; the tests stay valid however often one looks,
and the chance that a version which keeps its bounds is halted by them is at most
`terms.false_halt_rate` over the whole rollout, split evenly over the two tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeloop_controller.core.rollout_types import Evidence, Member, RolloutSpec

GateName = Literal["failures", "disagreement", "accuracy"]


@dataclass(frozen=True)
class Verdict:
    """What one gate says. `looked` is how many members or examples it has seen."""

    gate: GateName
    halted: bool
    sentence: str
    looked: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


def judge(
    spec: RolloutSpec, members: Mapping[str, Member], evidence: Evidence
) -> tuple[Verdict, ...]:
    """All three verdicts, in the order failures, disagreement, accuracy."""
    raise NotImplementedError


def halting(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first verdict that halts, if any."""
    return next((verdict for verdict in verdicts if verdict.halted), None)
