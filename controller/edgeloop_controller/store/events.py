"""The append-only event log."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import Event, table_of

_ADD: Final = Prepared(
    insert(table_of(Event))
    .inline()
    .values({name: bindparam(name) for name in ("at", "kind", "subject", "data")})
)


def add(
    session: Session, at: float, kind: str, subject: str, data: dict[str, Any] | None = None
) -> None:
    """One event of the controller's own; `kind` is `<noun>.<past participle>`."""
    _ADD.run(session, [{"at": at, "kind": kind, "subject": subject, "data": data or {}}])


def after(session: Session, event_id: int, kind: str | None, limit: int) -> Sequence[Event]:
    """Events with a greater id, oldest first; `kind` may end in `.` or `*` to mean a prefix."""
    query = select(Event).where(Event.id > event_id).order_by(Event.id).limit(limit)
    return session.scalars(_of_kind(query, kind)).all()


def latest(session: Session, kind: str | None, limit: int) -> Sequence[Event]:
    """The newest `limit` events, oldest first."""
    query = select(Event).order_by(Event.id.desc()).limit(limit)
    return session.scalars(_of_kind(query, kind)).all()[::-1]


def _of_kind(query: Any, kind: str | None) -> Any:
    if kind is None:
        return query
    if kind.endswith(("*", ".")):
        return query.where(Event.kind.startswith(kind.rstrip("*"), autoescape=True))
    return query.where(Event.kind == kind)
