"""What a virtual world says of its retraining, and the executor that lets virtual time pass.

The policy, the choice of samples, the split, the terms of acceptance, publication and rollout are
the controller's own. Simulated is the training itself: it takes virtual time, and then either
really trains (a user's script, or a Python function) or says what the world's script says
(`models.training`).

Invariants: frozen; a run that is killed before its virtual end has trained nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final, Protocol

from edgeloop_controller.core.retraining import Policy
from edgeloop_controller.services.candidate import MakeCandidates
from edgeloop_controller.training.executor import Ending, Executor, Outcome, TrainingJob
from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.scenario import Annotator
from edgeloop_simulators.virtual.spec.behaviour import Behaviour

LOOK_S: Final = 60.0
"""How often in virtual time a run looks whether it was cancelled."""

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


class VirtualExecutor:
    """The Executor port: lets `duration_s` pass by `sleep`, then trains at once."""

    def __init__(self, inner: Executor, duration_s: float, sleep: Callable[[float], None]) -> None:
        self._inner, self._duration_s, self._sleep = inner, duration_s, sleep

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        passed_s, ends_s = 0.0, min(self._duration_s, job.timeout_s)
        while passed_s < ends_s:
            if cancel.is_set():
                return Outcome(Ending.CANCELLED, "the run was cancelled", passed_s)
            step_s = min(LOOK_S, ends_s - passed_s)
            self._sleep(step_s)
            passed_s += step_s
        if self._duration_s > job.timeout_s:
            message = f"the script did not end within {job.timeout_s:g} s; raise timeout_s"
            return Outcome(Ending.TIMED_OUT, message, passed_s)
        outcome = self._inner.run(job, cancel)
        # A world's directory has another name each time, and its trace must not.
        message = outcome.message.replace(str(job.directory.resolve()), ".")
        return replace(outcome, duration_s=passed_s, message=message)


class _NoTraining:
    """The Executor port of a world that trains nothing."""

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:  # noqa: ARG002 - the port's
        return Outcome(Ending.NOT_STARTED, "this world trains nothing", 0.0)


NO_TRAINING: Final[Executor] = _NoTraining()
