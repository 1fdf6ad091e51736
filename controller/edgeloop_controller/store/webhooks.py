"""How far events are settled with each webhook; the event log itself is the queue.

Invariants: a cursor only moves up, but for a log that a restored backup made shorter; events of
webhooks themselves are nobody's, or a dead receiver would feed itself.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import Session

from edgeloop_controller.store import events
from edgeloop_controller.store.events import Looked
from edgeloop_controller.store.tables import Event, WebhookCursor

OWN_KINDS: Final = "webhook."
BEHIND_COUNTED_MAX: Final = 1000


def every(session: Session) -> Sequence[WebhookCursor]:
    return session.scalars(select(WebhookCursor).order_by(WebhookCursor.name)).all()


def find(session: Session, name: str) -> WebhookCursor | None:
    return session.get(WebhookCursor, name)


def make_missing(session: Session, names: Iterable[str]) -> None:
    """A new webhook begins with what happens from now on."""
    last = events.last_id(session)
    for name in names:
        cursor = session.get(WebhookCursor, name)
        if cursor is None:
            session.add(WebhookCursor(name=name, through=last))
        elif cursor.through > last:
            cursor.through = last


def look_on(session: Session, through: int, kinds: Sequence[str], limit: int) -> Looked:
    """Events of the `kinds` behind `through`."""
    last = events.last_id(session)
    query = select(Event).where(Event.id > through, Event.id <= last, _of(kinds))
    found = session.scalars(query.order_by(Event.id).limit(limit)).all()
    return Looked(found, found[-1].id if len(found) == limit else max(last, through))


def behind(session: Session, through: int, kinds: Sequence[str]) -> int:
    """How many are to be delivered still; counted to BEHIND_COUNTED_MAX."""
    found = select(Event.id).where(Event.id > through, _of(kinds)).limit(BEHIND_COUNTED_MAX)
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0


def _of(kinds: Sequence[str]) -> ColumnElement[bool]:
    wanted: list[Any] = [
        true()
        if kind == "*"
        else Event.kind.startswith(kind.removesuffix("*"), autoescape=True)
        if kind.endswith("*")
        else Event.kind == kind
        for kind in kinds
    ]
    return or_(*wanted) & Event.kind.not_like(f"{OWN_KINDS}%")
