"""The audit log: read only. What writes it is `api.audit`."""

from typing import Annotated

from fastapi import APIRouter, Query

from edgeloop.documents.audit import AuditDocument
from edgeloop.documents.base import ROW_ID_MAX, Page
from edgeloop_controller.api.context import Context
from edgeloop_controller.store import audit

router = APIRouter(tags=["audit"])


@router.get("/audit")
def list_audit(
    services: Context,
    subject: Annotated[str | None, Query(description="`rollout:4`, `device:watch-3` …")] = None,
    actor: str | None = None,
    since: Annotated[float | None, Query(description="seconds since 1970")] = None,
    after: Annotated[
        int | None, Query(ge=0, le=ROW_ID_MAX, description="none: the newest ones")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[AuditDocument]:
    """Oldest first. Who asked is as the sender said, unless `authenticated`."""
    wanted = audit.Filter(subject=subject, actor=actor, since=since)
    with services.database.reading() as session:
        if after is None:
            rows = audit.latest(session, wanted, limit)
        else:
            rows = audit.after(session, after, wanted, limit)
    items = [AuditDocument.model_validate(row, from_attributes=True) for row in rows]
    return Page(items=items, next=items[-1].id if len(items) == limit else None)
