"""One training run from its row to its end: data, script, candidate, publication, rollout.

Invariants: one run at a time; every ending is written down with its cause; a run that a stop of the
controller interrupted is taken up again, a bounded number of times, and is never left "running";
nothing is published that the policy's acceptance did not pass; held-back samples never reach the
script.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from edgeloop_controller.core.provenance import Material
from edgeloop_controller.core.retraining import Policy, RunStatus
from edgeloop_controller.errors import ConflictError, ControllerError, TrainingError
from edgeloop_controller.services import provenance
from edgeloop_controller.services.candidate import CandidateMaker
from edgeloop_controller.services.policies import Policies
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.rollouts import RolloutRequest, Rollouts
from edgeloop_controller.services.training_data import TrainingData, collect
from edgeloop_controller.store import events, rollouts, runs, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import DriftAlarm, TrainingRun
from edgeloop_controller.training.dataset import HeldBack, held_back, split, write_training_input
from edgeloop_controller.training.evaluation import reason_to_reject
from edgeloop_controller.training.executor import Ending, Executor, Outcome, TrainingJob
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import ProtocolError
from edgeloop_protocol.manifest import Manifest

logger = logging.getLogger(__name__)

ROLLOUT_WAITS_EVENT: Final = "training.rollout_waits"
ATTEMPTS_MAX: Final = 3
"""Starts of one run: a script that takes the controller down with it is not tried for ever."""


@dataclass(frozen=True)
class _Ended:
    status: RunStatus
    result: dict[str, Any]
    error: str = ""
    candidate_digest: str | None = None


class TrainingRuns:
    """`work` is called by the scheduler, never twice at once; `cancel` ends a script."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        executor: Executor,
        candidates: CandidateMaker,
        rollout_service: Rollouts,
        policies: Callable[[], Policies],
        clock: Clock,
        *,
        provenance: bool = False,
    ) -> None:
        """`provenance`: a statement beside each run that published (services.provenance)."""
        self._provenance = provenance
        self._database = database
        self._registry = registry
        self._executor = executor
        self._candidates = candidates
        self._rollouts = rollout_service
        self._policies = policies
        self._clock = clock
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """The controller stops: end the script, so that no process outlives it."""
        self._cancelled.set()

    def take_up_interrupted(self) -> None:
        """At start: what a kill interrupted waits again, unless it had published."""
        now = self._clock.wall()
        with self._database.writing() as session:
            for run in runs.with_status(session, RunStatus.RUNNING):
                published = versions.of_run(session, run.id)
                if published is None:
                    _interrupt(session, run, now)
                else:
                    run.candidate_digest = published.manifest_digest
                    _close(session, run, RunStatus.SUCCEEDED, "", now)

    def work(self) -> None:
        """Run the oldest pending run, if any, then start rollouts that waited."""
        run = self._take_pending()
        if run is not None:
            ended = self._run(run)
            if ended is None:
                self._put_back(run)
            else:
                self._end(run, ended)
        self._start_waiting_rollouts()

    def _take_pending(self) -> TrainingRun | None:
        if self._cancelled.is_set():
            return None
        with self._database.writing() as session:
            pending = runs.with_status(session, RunStatus.PENDING)
            if not pending:
                return None
            run = pending[0]
            run.status = RunStatus.RUNNING.value
            run.attempts += 1
            run.started_at = self._clock.wall()
            events.add(session, run.started_at, "training.started", run.policy, {"run": run.id})
            return run

    def _run(self, run: TrainingRun) -> _Ended | None:
        """None: interrupted."""
        result = dict(run.result)
        try:
            return self._train(run, self._policies().require(run.policy), result)
        except (ControllerError, ProtocolError, OSError) as error:
            return _Ended(RunStatus.FAILED, result, str(error))
        except Exception as error:
            logger.exception("run %d failed by an error of ours", run.id)
            return _Ended(RunStatus.FAILED, result, f"{type(error).__name__}: {error}")

    def _train(self, run: TrainingRun, policy: Policy, result: dict[str, Any]) -> _Ended | None:
        parent = self._registry.manifest(run.parent_digest)
        data = self._collect(run, policy, parent)
        result["data"] = data.describe()
        examples = self._write_input(run, policy, parent, data, result)
        taken = provenance.materials_of(run, policy, parent) if self._provenance else None
        outcome = self._executor.run(
            TrainingJob(
                script=Path(policy.script).absolute(),
                directory=Path(run.directory),
                timeout_s=policy.timeout_s,
                memory_max_bytes=policy.memory_max_bytes,
                inputs=tuple(Path(path) for path in policy.inputs.values()),
            ),
            self._cancelled,
        )
        if outcome.ending is Ending.CANCELLED:
            return None
        result["script"] = {"ending": outcome.ending.value, "duration_s": outcome.duration_s}
        if outcome.ending is not Ending.SUCCEEDED:
            return _Ended(RunStatus.FAILED, result, outcome.message)
        ended = self._judge(run, policy, parent, outcome, examples, result)
        if taken is not None and ended.candidate_digest is not None:
            self._state_provenance(run, policy, taken, ended.candidate_digest)
        return ended

    def _state_provenance(
        self, run: TrainingRun, policy: Policy, taken: list[Material], digest: str
    ) -> None:
        """The version is published: that nothing can be said of it must not undo that."""
        try:
            published = self._registry.manifest(digest)
            provenance.write_statement(run, policy, taken, published, self._clock.wall())
        except OSError as error:
            logger.warning("run %d: no statement of provenance: %s", run.id, error)

    def _collect(self, run: TrainingRun, policy: Policy, parent: Manifest) -> TrainingData:
        with self._database.reading() as session:
            alarm = session.get(DriftAlarm, run.drift_alarm_id) if run.drift_alarm_id else None
            return collect(session, policy.slot, parent, alarm)

    def _write_input(
        self,
        run: TrainingRun,
        policy: Policy,
        parent: Manifest,
        data: TrainingData,
        result: dict[str, Any],
    ) -> HeldBack:
        names = [feature.name for feature in parent.features]
        parts = split(data.samples, policy.acceptance.held_back_fraction)
        if not parts.train or not parts.held_back:
            raise TrainingError(
                f"{len(data.samples)} labelled samples leave {len(parts.train)} to train on and "
                f"{len(parts.held_back)} to judge by: label more of them"
            )
        write_training_input(
            Path(run.directory),
            parts.train,
            names,
            parent.labels,
            run_id=run.id,
            policy=policy.name,
            model=policy.model,
            slot=policy.slot,
            parent=parent.ref(),
            inputs=policy.inputs,
        )
        result["data"] |= {"train": len(parts.train), "held_back": len(parts.held_back)}
        return held_back(parts.held_back, names)

    def _judge(
        self,
        run: TrainingRun,
        policy: Policy,
        parent: Manifest,
        outcome: Outcome,
        examples: HeldBack,
        result: dict[str, Any],
    ) -> _Ended:
        candidate = self._candidates.make(run, parent, outcome, examples)
        result["evaluation"] = candidate.comparison.evaluation.model_dump(mode="json")
        result["subsets"] = {
            name: asdict(count) for name, count in candidate.comparison.subsets.items()
        }
        reason = reason_to_reject(candidate.comparison.evaluation, policy.acceptance)
        if reason is not None:
            return _Ended(RunStatus.REJECTED, result, reason)
        published = self._candidates.publish(run, candidate)
        result["version"] = {"name": published.name, "version": published.version}
        return _Ended(RunStatus.SUCCEEDED, result, candidate_digest=published.digest())

    def _end(self, run: TrainingRun, ended: _Ended) -> None:
        now = self._clock.wall()
        logger.info("run %d of policy %s: %s %s", run.id, run.policy, ended.status, ended.error)
        with self._database.writing() as session:
            row = runs.require(session, run.id)
            row.result = ended.result
            row.candidate_digest = ended.candidate_digest
            _close(session, row, ended.status, ended.error, now)

    def _put_back(self, run: TrainingRun) -> None:
        with self._database.writing() as session:
            _interrupt(session, runs.require(session, run.id), self._clock.wall())

    def _start_waiting_rollouts(self) -> None:
        """A candidate's rollout waits while another one has its devices; it is tried each time."""
        waiting, refused = self._without_rollout()
        for run_id, why in refused.items():
            logger.info("run %d: its candidate is not rolled out: %s", run_id, why)
            self._note(run_id, {"rollout_refused": why})
        for run, request in waiting:
            try:
                rollout_id = self._rollouts.start(request)
                note: dict[str, Any] = {"rollout": rollout_id}
            except ConflictError as error:
                note = {"rollout_waits": str(error)}
            except ControllerError as error:
                logger.error("run %d: its rollout cannot start: %s", run.id, error)
                note = {"rollout_refused": str(error)}
            self._note(run.id, note)

    def _note(self, run_id: int, note: dict[str, Any]) -> None:
        """In place of what the run's rollout waited for, if it did."""
        with self._database.writing() as session:
            row = runs.require(session, run_id)
            kept = {k: v for k, v in row.result.items() if k != "rollout_waits"}
            waits = note.get("rollout_waits")
            if waits is not None and waits != row.result.get("rollout_waits"):
                data = {"run": run_id, "why": waits}
                events.add(session, self._clock.wall(), ROLLOUT_WAITS_EVENT, row.policy, data)
            row.result = kept | note

    def _without_rollout(self) -> tuple[list[tuple[TrainingRun, RolloutRequest]], dict[int, str]]:
        """Succeeded runs whose candidate is to be rolled out, and those that no longer are, with
        why not: a wait that can never end would keep the policy from starting another run."""
        policies = self._policies().found
        waiting, refused = [], {}
        with self._database.reading() as session:
            for run in runs.with_status(session, RunStatus.SUCCEEDED):
                policy = policies.get(run.policy)
                if policy is None or "rollout_refused" in run.result:
                    continue
                if not policy.rollout.waves:
                    if "rollout_waits" in run.result:
                        refused[run.id] = "the policy only publishes now"
                    continue
                candidate = versions.of_run(session, run.id)
                if candidate is None or rollouts.of_run(session, run.id) is not None:
                    continue
                newest = versions.of_model(session, candidate.name)[-1]
                if newest.manifest_digest == candidate.manifest_digest:
                    waiting.append((run, _request(policy, candidate.version, run.id)))
                else:
                    refused[run.id] = f"superseded by {newest.name}@{newest.version}"
        return waiting, refused


def _interrupt(session: Session, run: TrainingRun, now: float) -> None:
    """Back to pending: it was no answer to what it was started for. Failed after ATTEMPTS_MAX."""
    if run.attempts >= ATTEMPTS_MAX:
        error = f"the controller stopped while it ran, {run.attempts} times"
        _close(session, run, RunStatus.FAILED, error, now)
        return
    run.status = RunStatus.PENDING.value
    run.started_at = None
    data = {"run": run.id, "attempts": run.attempts}
    events.add(session, now, "training.interrupted", run.policy, data)


def _close(session: Session, run: TrainingRun, status: RunStatus, error: str, now: float) -> None:
    run.status = status.value
    run.ended_at = now
    run.error = error
    data = {"run": run.id, "status": status.value, "error": error}
    data |= {key: run.result[key] for key in ("version",) if key in run.result}
    events.add(session, now, "training.ended", run.policy, data)


def _request(policy: Policy, version: str, run_id: int) -> RolloutRequest:
    return RolloutRequest(
        name=policy.model,
        version=version,
        selector=policy.rollout.selector,
        waves=policy.rollout.waves,
        terms=policy.rollout.terms,
        slot=policy.slot,
        training_run_id=run_id,
    )
