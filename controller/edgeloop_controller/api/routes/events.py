"""The event log."""

from typing import Annotated

from fastapi import APIRouter, Query

from edgeloop.documents import fleet as documents
from edgeloop.documents.base import ROW_ID_MAX, Page
from edgeloop_controller.api.context import Context
from edgeloop_controller.store import events
from edgeloop_controller.store.tables import Event

router = APIRouter(tags=["events"])


@router.get("/events")
def list_events(
    services: Context,
    after: Annotated[
        int | None, Query(ge=0, le=ROW_ID_MAX, description="none: the newest ones")
    ] = None,
    kind: Annotated[str | None, Query(description="`rollout.halted`, or `rollout.*`")] = None,
    subject: Annotated[str | None, Query(description="`watch@3`, a device's id …")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[documents.EventDocument]:
    """Oldest first. `next` is always given: poll with it to follow the log; it is the highest id
    that was looked at, whatever matched."""
    with services.database.reading() as session:
        if after is None:
            through = events.last_id(session)
            rows = events.latest(session, kind, limit, subject)
            rows = [row for row in rows if row.id <= through]
        else:
            looked = events.look_on(session, after, kind, limit, subject)
            rows, through = list(looked.events), looked.through
    return Page(items=[_document(row) for row in rows], next=through)


def _document(row: Event) -> documents.EventDocument:
    return documents.EventDocument(
        id=row.id,
        at=row.at,
        kind=row.kind,
        subject=row.subject,
        data=row.data,
        device_id=row.device_id,
    )
