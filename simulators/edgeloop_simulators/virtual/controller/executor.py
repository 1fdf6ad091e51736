"""The Executor port in virtual time: a run takes its virtual while, and then either really trains
(a user's script, or a Python function) or says what the world's script says (`models.training`).

Invariant: a run that is cancelled or killed before its virtual end has trained nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Final

from edgeloop_controller.training.executor import Ending, Executor, Outcome, TrainingJob

LOOK_S: Final = 60.0
"""How often in virtual time a run looks whether it was cancelled."""


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
