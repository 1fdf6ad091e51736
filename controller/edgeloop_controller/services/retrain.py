"""When retraining starts: policies are looked at, and runs are asked for.

Invariants: a run's row is written before its script starts; a policy has at most one unfinished
run, and none while the rollout of its last candidate is under way.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from edgeloop_controller.core.retraining import (
    Policy,
    PolicyTerms,
    PolicyView,
    RunStatus,
    Start,
    Wait,
    decide,
)
from edgeloop_controller.errors import ConflictError
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.policies import Origin, Policies, PolicyShelf
from edgeloop_controller.store import devices, drift, events, rollouts, runs, samples, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import TrainingRun, Version
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

Trigger = Literal["drift", "schedule", "labels", "manual"]


@dataclass(frozen=True)
class PolicyStatus:
    """A policy and what it waits for now."""

    policy: Policy
    terms: PolicyTerms
    """As they were given, and `origin` says where."""
    origin: Origin
    champion: Version | None
    view: PolicyView
    says: str


class Retraining:
    """`look` is called by the scheduler; `request` by people."""

    def __init__(
        self, database: Database, clock: Clock, shelf: PolicyShelf, runs_dir: Path
    ) -> None:
        self._database = database
        self._clock = clock
        self._shelf = shelf
        self._runs_dir = runs_dir
        self._errors_said: dict[str, str] = {}
        self._failures = FailureLog(logger)

    def policies(self) -> Policies:
        return self._shelf.load()

    def look(self) -> None:
        """Start a run for each policy that says so."""
        policies = self.policies()
        self._say_errors(policies)
        for policy in policies.found.values():
            try:
                self._look_at(policy)
                self._failures.worked(f"policy {policy.name}")
            except Exception:
                self._failures.failed(f"policy {policy.name}")

    def request(self, name: str) -> int:
        """A run by hand, whatever the policy waits for. Raises NotFoundError or ConflictError."""
        policy = self.policies().require(name)
        with self._database.writing() as session:
            last = runs.last_of(session, policy.name)
            if last is not None and last.status in runs.UNFINISHED:
                raise ConflictError(
                    f"run {last.id} of policy {name} is {last.status}",
                    hint=f"wait for it: `edgeloop retrain show {last.id}`",
                )
            parent = champion(session, policy)
            if parent is None:
                parent = versions.require_model(session, policy.model)[-1]
            return self._add(session, policy, parent, "manual", "asked for by hand")

    def status(self) -> list[PolicyStatus]:
        """Every usable policy, for people."""
        now = self._clock.wall()
        result = []
        policies = self.policies()
        with self._database.reading() as session:
            for name, policy in policies.found.items():
                parent = champion(session, policy)
                view = _view(session, policy, parent)
                says = decide(policy, view, now).why
                terms, origin = policies.terms(name), policies.origin(name)
                result.append(PolicyStatus(policy, terms, origin, parent, view, says))
        return result

    def _look_at(self, policy: Policy) -> None:
        now = self._clock.wall()
        with self._database.writing() as session:
            parent = champion(session, policy)
            if parent is None:
                return
            decision = decide(policy, _view(session, policy, parent), now)
            match decision:
                case Start(trigger=trigger, why=why):
                    self._add(session, policy, parent, trigger, why)
                case Wait():
                    pass

    def _add(
        self, session: Session, policy: Policy, parent: Version, trigger: Trigger, why: str
    ) -> int:
        now = self._clock.wall()
        alarm = drift.open_world_changed(session, policy.slot, parent.manifest_digest)
        run = TrainingRun(
            policy=policy.name,
            status=RunStatus.PENDING.value,
            trigger=trigger,
            drift_alarm_id=alarm.id if alarm else None,
            parent_digest=parent.manifest_digest,
            candidate_digest=None,
            requested_at=now,
            started_at=None,
            ended_at=None,
            directory="",
            result={"why": why},
            error="",
        )
        session.add(run)
        session.flush()
        run.directory = str((self._runs_dir / str(run.id)).absolute())
        data: dict[str, Any] = {"run": run.id, "trigger": trigger, "why": why}
        data["parent"] = f"{parent.name}@{parent.version}"
        events.add(session, now, "training.requested", policy.name, data)
        return run.id

    def _say_errors(self, policies: Policies) -> None:
        """Once for each file and error."""
        new = {w: e for w, e in policies.errors.items() if self._errors_said.get(w) != e}
        self._errors_said = dict(policies.errors)
        if not new:
            return
        with self._database.writing() as session:
            for where, error in new.items():
                logger.error("a retraining policy cannot be used: %s", error)
                data = {"file": where, "error": error}
                subject = Path(where).stem.removeprefix("policy ")
                events.add(session, self._clock.wall(), "policy.refused", subject, data)


def champion(session: Session, policy: Policy) -> Version | None:
    """The version of the policy's model that most devices run on its slot; newest of equals."""
    rows = {row.manifest_digest: row for row in versions.of_model(session, policy.model)}
    counts = devices.champions(session, policy.slot, rows)
    running = [rows[digest] for digest in counts]
    return max(
        running, key=lambda row: (counts[row.manifest_digest], row.published_at), default=None
    )


def _view(session: Session, policy: Policy, parent: Version | None) -> PolicyView:
    last = runs.last_of(session, policy.name)
    running = last is not None and (
        last.status in runs.UNFINISHED
        or "rollout_waits" in last.result
        or rollouts.active_of_run(session, last.id)
    )
    digests = [row.manifest_digest for row in versions.of_model(session, policy.model)]
    alarm = (
        drift.open_world_changed(session, policy.slot, parent.manifest_digest) if parent else None
    )
    since_alarm = alarm.raised_at if alarm else float("inf")
    since_run = last.requested_at if last else 0.0
    counts = devices.champions(session, policy.slot, [parent.manifest_digest]) if parent else {}
    return PolicyView(
        running=running,
        last_ended_at=last.ended_at if last else None,
        world_changed_at=alarm.raised_at if alarm else None,
        labels_since_alarm=samples.count_labelled(
            session, policy.slot, digests, taken_since=since_alarm, given_since=0.0
        ),
        labels_since_last_run=samples.count_labelled(
            session, policy.slot, digests, taken_since=0.0, given_since=since_run
        ),
        devices_on_champion=sum(counts.values()),
        rollout_waits=str(last.result.get("rollout_waits", "")) if last is not None else "",
    )
