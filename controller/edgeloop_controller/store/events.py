"""The append-only event log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, select
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


@dataclass(frozen=True)
class Looked:
    """Events, oldest first; `through`: the highest id that was looked at, whatever was found."""

    events: Sequence[Event]
    through: int


def last_id(session: Session) -> int:
    """0: there is none."""
    return session.scalar(select(func.max(Event.id))) or 0


def after(
    session: Session, event_id: int, kind: str | None, limit: int, subject: str | None = None
) -> Sequence[Event]:
    """Events with a greater id, oldest first; `kind` may end in `.` or `*` to mean a prefix."""
    query = select(Event).where(Event.id > event_id).order_by(Event.id).limit(limit)
    return session.scalars(_of(query, kind, subject)).all()


def look_on(
    session: Session, event_id: int, kind: str | None, limit: int, subject: str | None = None
) -> Looked:
    """As `after`, for who goes on from `through`: nothing is missed and nothing comes twice, since
    ids ascend in the order of commits (store.engine). An id above all that there are is of a time
    that a restored backup knows nothing of: it goes on from what there is."""
    last = last_id(session)
    found = [e for e in after(session, event_id, kind, limit, subject) if e.id <= last]
    return Looked(found, found[-1].id if len(found) == limit else last)


def latest(
    session: Session, kind: str | None, limit: int, subject: str | None = None
) -> Sequence[Event]:
    """The newest `limit` events, oldest first."""
    query = select(Event).order_by(Event.id.desc()).limit(limit)
    return session.scalars(_of(query, kind, subject)).all()[::-1]


def newest_of(session: Session, kind: str, subject: str) -> Event | None:
    query = select(Event).where(Event.kind == kind, Event.subject == subject)
    return session.scalars(query.order_by(Event.id.desc()).limit(1)).first()


def _of(query: Any, kind: str | None, subject: str | None) -> Any:
    if subject is not None:
        query = query.where(Event.subject == subject)
    if kind is None:
        return query
    if kind.endswith(("*", ".")):
        return query.where(Event.kind.startswith(kind.rstrip("*"), autoescape=True))
    return query.where(Event.kind == kind)
