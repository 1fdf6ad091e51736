"""Retraining policies and training runs."""

from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session

from edgeloop.documents import loop as shapes
from edgeloop.documents.base import Items
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.row_ids import RowId
from edgeloop_controller.api.version_refs import version_ref
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.services.desired import offer
from edgeloop_controller.services.provenance import read_statement
from edgeloop_controller.services.retrain import PolicyStatus
from edgeloop_controller.store import rollouts, runs
from edgeloop_controller.store.tables import TrainingRun
from edgeloop_protocol.messages import Name

router = APIRouter(prefix="/retraining", tags=["retraining"])

LOG_SHOWN_MAX_BYTES: Final = 1024 * 1024


@router.get("/policies")
def list_policies(services: Context) -> shapes.PoliciesDocument:
    """`errors` are the files that cannot be used, and why."""
    errors = services.retraining.policies().errors
    return shapes.PoliciesDocument(
        items=[_policy(status) for status in services.retraining.status()],
        errors=[shapes.BadPolicy(file=where, error=text) for where, text in errors.items()],
    )


@router.put("/policies/{name}")
def give_policy(name: Name, terms: PolicyTerms, services: Context) -> shapes.PolicyDocument:
    """Script and inputs are paths below the controller's `[retraining] scripts_dir`. What the name
    had before is replaced."""
    services.policies.give(name, terms)
    return next(_policy(one) for one in services.retraining.status() if one.policy.name == name)


@router.delete("/policies/{name}")
def take_policy_away(name: Name, services: Context) -> shapes.PolicyRemoved:
    """Of the API only; not while a run of it has not ended."""
    services.policies.take_away(name)
    return shapes.PolicyRemoved(name=name)


@router.post("/policies/{name}/runs", status_code=201)
def run_policy(name: str, services: Context) -> shapes.RunDocument:
    """A run by hand; it starts when the one before it has ended."""
    return show_run(services.retraining.request(name), services)


@router.get("/runs")
def list_runs(
    services: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Items[shapes.RunDocument]:
    """Newest first."""
    with services.database.reading() as session:
        return Items(items=[_run(session, row) for row in runs.latest(session, limit)])


@router.get("/runs/{run_id}")
def show_run(run_id: RowId, services: Context) -> shapes.RunDocument:
    with services.database.reading() as session:
        return _run(session, runs.require(session, run_id))


@router.get("/runs/{run_id}/log", response_class=PlainTextResponse)
def show_log(run_id: RowId, services: Context) -> str:
    """What the script printed; the last MiB of it. Empty before it started."""
    with services.database.reading() as session:
        path = Path(runs.require(session, run_id).directory) / "log.txt"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_SHOWN_MAX_BYTES))
            return file.read(LOG_SHOWN_MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


@router.get("/runs/{run_id}/provenance")
def show_provenance(run_id: RowId, services: Context) -> dict[str, Any]:
    """An in-toto Statement v1 with SLSA's provenance v1 of what the run published; not signed."""
    with services.database.reading() as session:
        row = runs.require(session, run_id)
    return read_statement(row)


def _run(session: Session, row: TrainingRun) -> shapes.RunDocument:
    rollout = rollouts.of_run(session, row.id)
    return shapes.RunDocument(
        id=row.id,
        policy=row.policy,
        status=row.status,
        trigger=row.trigger,
        drift_alarm_id=row.drift_alarm_id,
        parent=version_ref(session, row.parent_digest),
        candidate=version_ref(session, row.candidate_digest),
        rollout_id=rollout.id if rollout else None,
        requested_at=row.requested_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        directory=row.directory,
        result=row.result,
        error=row.error,
    )


def _policy(status: PolicyStatus) -> shapes.PolicyDocument:
    policy = status.policy
    return shapes.PolicyDocument(
        name=policy.name,
        model=policy.model,
        slot=policy.slot,
        on=list(policy.on),
        script=policy.script,
        origin=status.origin,
        terms=status.terms.model_dump(mode="json", exclude={"name"}),
        champion=offer(status.champion).ref if status.champion else None,
        labels_since_alarm=status.view.labels_since_alarm,
        labels_since_last_run=status.view.labels_since_last_run,
        says=status.says,
    )
