"""What a virtual world says of its retraining.

The policy, the choice of samples, the split, the terms of acceptance, publication and rollout are
the controller's own. Simulated is the training itself (`controller.executor`, `models.training`).

Invariant: frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgeloop_controller.core.retraining import Policy
from edgeloop_controller.services.candidate import MakeCandidates
from edgeloop_controller.training.executor import Executor
from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.scenario import Annotator
from edgeloop_simulators.virtual.spec.behaviour import Behaviour

TruthOf = Callable[[str, str], str | None]
"""Device id and reference → the true label; None: nobody knows."""


class Training(Protocol):
    """`executor` trains at once; `behaviour` is what runs on the devices where a version that came
    of a run was installed."""

    executor: Executor
    make_candidates: MakeCandidates

    def behaviour(self, run_id: int, manifest: Manifest, artifact: bytes) -> Behaviour: ...


@dataclass(frozen=True)
class RetrainingSpec:
    """The retraining of a world: one policy, what its runs do, and who labels."""

    policy: Policy
    training: Training
    truth_of: TruthOf
    annotator: Annotator = field(default_factory=Annotator)
    duration_s: float = 600.0
    """Of one run, in virtual time."""
