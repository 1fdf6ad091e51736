"""Versions in shadow beside the champions: starting, watching and stopping them."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents import challengers as shapes
from edgeloop.documents.base import Items
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.row_ids import RowId
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.store import challengers, versions
from edgeloop_controller.store.challengers import Seen
from edgeloop_controller.store.tables import Challenger
from edgeloop_protocol.lifecycle import ChallengeState
from edgeloop_protocol.messages import ShadowBudget

router = APIRouter(prefix="/challengers", tags=["challengers"])


@router.post("", status_code=201)
def start(body: shapes.ChallengerStart, services: Context) -> shapes.ChallengerDetail:
    challenger_id = services.challengers.start(
        ChallengerRequest(
            name=body.name,
            version=body.version,
            selector=body.selector,
            slot=body.slot,
            budget=body.budget,
        )
    )
    return show(challenger_id, services)


@router.get("")
def list_challengers(
    services: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Items[shapes.ChallengerSummary]:
    """Newest first."""
    with services.database.reading() as session:
        items = [_summary(session, row) for row in challengers.every(session, limit)]
    return Items(items=items)


@router.get("/{challenger_id}")
def show(challenger_id: RowId, services: Context) -> shapes.ChallengerDetail:
    with services.database.reading() as session:
        return _detail(session, challengers.require(session, challenger_id))


@router.post("/{challenger_id}/stop")
def stop(challenger_id: RowId, services: Context) -> shapes.ChallengerDetail:
    """Its devices are rid of it at the next tick; what it showed stays."""
    services.challengers.stop(challenger_id)
    return show(challenger_id, services)


def _summary(session: Session, row: Challenger) -> shapes.ChallengerSummary:
    return _summary_of(
        session, row, challengers.reported(session, row), challengers.seen(session, row)
    )


def _detail(session: Session, row: Challenger) -> shapes.ChallengerDetail:
    reported, seen = challengers.reported(session, row), challengers.seen(session, row)
    summary = _summary_of(session, row, reported, seen)
    return shapes.ChallengerDetail(
        **{key: getattr(summary, key) for key in type(summary).model_fields},
        by_device=[
            _device(device_id, reported.get(device_id, {}), seen.get(device_id))
            for device_id in sorted(reported.keys() | seen.keys())
        ],
    )


def _summary_of(
    session: Session,
    row: Challenger,
    reported: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Seen],
) -> shapes.ChallengerSummary:
    version = versions.by_digest(session, row.manifest_digest)
    assert version is not None  # a foreign key
    states = [document.get("state", "") for document in reported.values()]
    return shapes.ChallengerSummary(
        id=row.id,
        name=version.name,
        version=version.version,
        manifest_digest=row.manifest_digest,
        slot=row.slot,
        selector=row.selector,
        budget=ShadowBudget.model_validate(row.budget),
        started_at=row.started_at,
        ended_at=row.ended_at,
        rollout_id=row.rollout_id,
        in_shadow=states.count(ChallengeState.IN_SHADOW),
        refused=states.count(ChallengeState.REFUSED),
        devices=len(reported.keys() | seen.keys()),
        seen=_added(list(seen.values())),
    )


def _device(
    device_id: str, reported: Mapping[str, Any], seen: Seen | None
) -> shapes.ChallengerDevice:
    return shapes.ChallengerDevice(
        device_id=device_id,
        state=reported.get("state", ""),
        cause=": ".join(filter(None, (reported.get("cause"), reported.get("detail")))),
        waiting=reported.get("waiting", ""),
        seen=_added([seen]) if seen is not None else None,
    )


def _added(all_seen: Collection[Seen]) -> shapes.SeenDocument | None:
    if not all_seen:
        return None
    span_s = sum(one.span_s for one in all_seen)
    return shapes.SeenDocument(
        count=sum(one.count for one in all_seen),
        errors=sum(one.errors for one in all_seen),
        nonfinite=sum(one.nonfinite for one in all_seen),
        disagreements=sum(one.disagreements for one in all_seen),
        skipped=sum(one.skipped for one in all_seen),
        cpu_fraction=sum(one.cpu_s for one in all_seen) / span_s if span_s else 0.0,
        latency_p95_us=max(one.latency_p95_us for one in all_seen),
        memory_bytes=max(one.memory_bytes for one in all_seen),
    )
