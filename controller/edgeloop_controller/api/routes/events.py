"""The event log."""

from typing import Annotated

from fastapi import APIRouter, Query

from edgeloop_controller.api import documents
from edgeloop_controller.api.context import Context
from edgeloop_controller.store import events
from edgeloop_controller.store.tables import Event

router = APIRouter(tags=["events"])


@router.get("/events")
def list_events(
    services: Context,
    after: Annotated[int | None, Query(ge=0, description="none: the newest ones")] = None,
    kind: Annotated[str | None, Query(description="`rollout.halted`, or `rollout.*`")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> documents.Page[documents.EventDocument]:
    """Oldest first. `next` is always given: poll with it to follow the log."""
    with services.database.reading() as session:
        if after is None:
            rows = events.latest(session, kind, limit)
        else:
            rows = events.after(session, after, kind, limit)
    items = [_document(row) for row in rows]
    return documents.Page(items=items, next=items[-1].id if items else after or 0)


def _document(row: Event) -> documents.EventDocument:
    return documents.EventDocument(
        id=row.id,
        at=row.at,
        kind=row.kind,
        subject=row.subject,
        data=row.data,
        device_id=row.device_id,
    )
