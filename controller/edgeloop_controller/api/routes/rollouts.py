"""Starting, watching and stopping rollouts."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop_controller.api import documents
from edgeloop_controller.api import rollout_documents as shapes
from edgeloop_controller.api.context import Context
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store import rollouts, verdicts, versions
from edgeloop_controller.store.tables import Rollout

router = APIRouter(prefix="/rollouts", tags=["rollouts"])


@router.post("", status_code=201)
def start(body: shapes.RolloutStart, services: Context) -> shapes.RolloutDetail:
    rollout_id = services.rollouts.start(
        RolloutRequest(
            name=body.name,
            version=body.version,
            selector=body.selector,
            waves=tuple(body.waves),
            terms=body.terms,
            slot=body.slot,
            allow_empty=body.allow_empty,
        )
    )
    return show(rollout_id, services)


@router.get("")
def list_rollouts(
    services: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> documents.Items[shapes.RolloutSummary]:
    """Newest first."""
    with services.database.reading() as session:
        rows = rollouts.every(session, limit)
        return documents.Items(items=[_summary(session, row) for row in rows])


@router.get("/{rollout_id}")
def show(rollout_id: int, services: Context) -> shapes.RolloutDetail:
    with services.database.reading() as session:
        rollout = rollouts.require(session, rollout_id)
        members = rollouts.members_of(session, rollout_id).values()
        summary = _summary(session, rollout)
        said = verdicts.of_rollout(session, rollout_id)
    return shapes.RolloutDetail(
        **{key: getattr(summary, key) for key in type(summary).model_fields},
        terms=rollouts.terms_of(rollout),
        devices=[
            shapes.MemberDocument(
                device_id=row.device_id,
                wave=row.wave + 1,
                phase=row.phase,
                offered_at=row.offered_at,
                settled_at=row.settled_at,
                before_digest=row.before_digest,
                cause=row.cause,
            )
            for row in sorted(members, key=lambda row: (row.wave, row.device_id))
        ],
        verdicts=[
            shapes.VerdictDocument(
                gate=row.gate,
                at=row.at,
                wave=row.wave + 1,
                halted=row.halted,
                sentence=row.sentence,
                looked=row.looked,
                evidence=row.evidence,
            )
            for row in said
        ],
    )


@router.post("/{rollout_id}/pause")
def pause(rollout_id: int, services: Context) -> shapes.RolloutDetail:
    """Nothing new is offered; what was offered stays."""
    services.rollouts.pause(rollout_id)
    return show(rollout_id, services)


@router.post("/{rollout_id}/resume")
def resume(rollout_id: int, services: Context) -> shapes.RolloutDetail:
    services.rollouts.resume(rollout_id)
    return show(rollout_id, services)


@router.post("/{rollout_id}/abort")
def abort(
    rollout_id: int, services: Context, body: shapes.AbortRequest | None = None
) -> shapes.RolloutDetail:
    """Devices that have not committed go back to what they ran."""
    services.rollouts.abort(rollout_id, (body or shapes.AbortRequest()).reason)
    return show(rollout_id, services)


def _summary(session: Session, rollout: Rollout) -> shapes.RolloutSummary:
    version = versions.by_digest(session, rollout.manifest_digest)
    assert version is not None  # a foreign key
    phases = [row.phase for row in rollouts.members_of(session, rollout.id).values()]
    return shapes.RolloutSummary(
        id=rollout.id,
        name=version.name,
        version=version.version,
        manifest_digest=rollout.manifest_digest,
        slot=rollout.slot,
        selector=rollout.selector,
        waves=rollout.waves,
        status=rollout.status,
        wave=rollout.wave + 1,
        verdict=rollout.verdict,
        started_at=rollout.started_at,
        wave_started_at=rollout.wave_started_at,
        ended_at=rollout.ended_at,
        training_run_id=rollout.training_run_id,
        members=shapes.MemberCounts(
            **{phase: phases.count(phase) for phase in shapes.MemberCounts.model_fields}
        ),
    )
