"""Versions in shadow beside the champions: starting, watching and stopping them."""

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop_controller.api import challenger_documents as shapes
from edgeloop_controller.api import documents
from edgeloop_controller.api.context import Context
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.store import challengers, devices, versions
from edgeloop_controller.store.challengers import Seen
from edgeloop_controller.store.tables import Challenger
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
) -> documents.Items[shapes.ChallengerSummary]:
    """Newest first."""
    with services.database.reading() as session:
        rows = challengers.every(session, limit)
        details = [_detail(session, row) for row in rows]
    summaries = [
        shapes.ChallengerSummary(**one.model_dump(exclude={"by_device"})) for one in details
    ]
    return documents.Items(items=summaries)


@router.get("/{challenger_id}")
def show(challenger_id: int, services: Context) -> shapes.ChallengerDetail:
    with services.database.reading() as session:
        return _detail(session, challengers.require(session, challenger_id))


@router.post("/{challenger_id}/stop")
def stop(challenger_id: int, services: Context) -> shapes.ChallengerDetail:
    """Its devices are rid of it at the next tick; what it showed stays."""
    services.challengers.stop(challenger_id)
    return show(challenger_id, services)


def _detail(session: Session, row: Challenger) -> shapes.ChallengerDetail:
    version = versions.by_digest(session, row.manifest_digest)
    assert version is not None  # a foreign key
    seen = challengers.seen(session, row)
    ids = sorted({*challengers.devices_of(session, row.id), *seen})
    by_device = [_device(session, row, device_id, seen.get(device_id)) for device_id in ids]
    states = [one.state for one in by_device]
    return shapes.ChallengerDetail(
        id=row.id,
        name=version.name,
        version=version.version,
        manifest_digest=row.manifest_digest,
        slot=row.slot,
        selector=row.selector,
        budget=ShadowBudget.model_validate(row.budget),
        started_at=row.started_at,
        ended_at=row.ended_at,
        in_shadow=states.count("in_shadow"),
        refused=states.count("refused"),
        devices=len(ids),
        seen=_added(list(seen.values())),
        by_device=by_device,
    )


def _device(
    session: Session, row: Challenger, device_id: str, seen: Seen | None
) -> shapes.ChallengerDevice:
    reported: dict[str, Any] = {}
    for slot in devices.slots_of(session, device_id):
        if slot.slot == row.slot:
            reported = slot.reported.get("challenger") or {}
    if reported.get("version", {}).get("manifest_digest") != row.manifest_digest:
        reported = {}
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
