"""Telemetry windows as they came."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from edgeloop.documents.base import ROW_ID_MAX, Page
from edgeloop.documents.telemetry import WindowDocument
from edgeloop_controller.api.context import Context, Services
from edgeloop_controller.api.version_refs import split_version, version_ref
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store import versions, window_pages
from edgeloop_controller.store.tables import Window

router = APIRouter(tags=["telemetry"])


@router.get("/telemetry/windows")
def list_windows(
    services: Context,
    device_id: str | None = None,
    slot: str | None = None,
    version: Annotated[str | None, Query(description="NAME@VERSION")] = None,
    since: Annotated[float | None, Query(description="received then or later")] = None,
    until: Annotated[float | None, Query(description="received before then")] = None,
    after: Annotated[int, Query(ge=0, le=ROW_ID_MAX)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[WindowDocument]:
    """In the order in which they came."""
    with services.database.reading() as session:
        wanted = window_pages.WindowFilter(
            device_id=device_id,
            slot=slot,
            manifest_digest=_digest(session, version) if version is not None else None,
            since=since,
            until=until,
        )
        rows = window_pages.page(session, wanted, after, limit)
        items = [_document(session, services, row) for row in rows]
    return Page(items=items, next=items[-1].id if len(items) == limit else None)


def _digest(session: Session, version: str) -> str:
    return versions.require(session, *split_version(version)).manifest_digest


def _document(session: Session, services: Services, row: Window) -> WindowDocument:
    return WindowDocument(
        id=row.id,
        device_id=row.device_id,
        slot=row.slot,
        version=version_ref(session, row.manifest_digest),
        received_at=row.received_at,
        device_started_at=row.device_started_at,
        device_ended_at=row.device_ended_at,
        windows=row.body.get("windows", 1),
        count=row.count,
        errors=row.errors,
        nonfinite=row.nonfinite,
        latency_p50_us=row.latency_p50_us,
        latency_p95_us=row.latency_p95_us,
        memory_bytes=row.memory_bytes,
        predictions=_by_label(services, row),
        compared=row.compared,
        disagreements=row.disagreements,
    )


def _by_label(services: Services, row: Window) -> dict[str, int]:
    """By number where the version, and so its labels, are not known here."""
    counts = row.body.get("predictions", ())
    try:
        labels = services.registry.manifest(row.manifest_digest).labels
    except NotFoundError:
        labels = ()
    names = [*labels, *map(str, range(len(labels), len(counts)))]
    return dict(zip(names, counts, strict=False))
