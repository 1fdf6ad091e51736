"""The audit log: who asked for what, from where, and what came of it.

Invariants: a request that changes something has its entry in the transaction of its first change
(`write_open`, called by `store.engine.Database.writing`), so the two are there together or not at
all; rows are only ever added, which triggers of the database hold (migration 0007: SQLite lets
REPLACE pass a DELETE trigger by, so there is one on INSERT too; a migration that rebuilds the table
must make them again); nothing here deletes. Each entry holds the SHA-256 of the one before and of
itself (`edgeloop.documents.audit.chain_of`). Each text has a limit of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import event, or_, select, text
from sqlalchemy.orm import Session

from edgeloop.documents.audit import chain_of
from edgeloop_controller.store.tables import AuditEntry, Challenger, Rollout, TrainingRun, Version

NOBODY_NAMED: Final = "local"
PATH_MAX_CHARS: Final = 300
DETAIL_MAX_CHARS: Final = 500

CREATED: Final = {Rollout: "rollout", Challenger: "challenger", TrainingRun: "run"}
"""Rows whose making an entry names, as `rollout:4`: their number is not in the request. So it does
of a version, where the request did not name it."""


@dataclass
class Request:
    """A request that may change something; mutable, for one request is carried over threads."""

    id: str
    at: float
    actor: str
    authenticated: bool
    address: str
    forwarded_for: str
    method: str
    path: str
    subject: str = ""
    essence: dict[str, Any] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)
    """Kept in the essence beside what the body said."""
    created: str = ""
    passed_over: int = 0
    recorded: bool = False
    """Whether an entry of it is committed."""

    def understood(self) -> None:
        """Called before an entry is written: `subject` and `essence` may be read only now."""


_LAST_LINK: Final = select(AuditEntry.chain).order_by(AuditEntry.id.desc()).limit(1)

_open: ContextVar[Request | None] = ContextVar("edgeloop_audited_request", default=None)


@contextmanager
def opened(request: Request | None) -> Iterator[None]:
    """What this task and the threads that it hands its context to write is of `request`."""
    token = _open.set(request)
    try:
        yield
    finally:
        _open.reset(token)


def identify(actor: str, noted: dict[str, Any] | None = None) -> None:
    """Who sent the open request has proved to be `actor`; another name that they gave is noted."""
    request = _open.get()
    if request is not None:
        said = {} if request.actor in (NOBODY_NAMED, actor) else {"said_to_be": request.actor}
        request.actor, request.authenticated = actor, True
        request.noted = said | (noted or {})


def write_open(session: Session) -> Request | None:
    """The entry of the open request, if there is one that has none; it is `recorded` only once this
    transaction is committed."""
    request = _open.get()
    if request is None or request.recorded:
        return None
    session.flush()
    add(session, request, "done")
    return request


def add(
    session: Session, request: Request, outcome: str, status: int | None = None, detail: str = ""
) -> None:
    """`outcome`: done, refused or failed."""
    request.understood()
    fields = {
        "at": float(request.at),
        "request": request.id,
        "actor": request.actor,
        "authenticated": request.authenticated,
        "address": request.address,
        "forwarded_for": request.forwarded_for,
        "method": request.method,
        "path": request.path[:PATH_MAX_CHARS],
        "subject": request.subject[:PATH_MAX_CHARS],
        "essence": request.essence,
        "created": request.created,
        "outcome": outcome,
        "status": status,
        "detail": detail[:DETAIL_MAX_CHARS],
        "passed_over": request.passed_over,
    }
    before = _last_link(session)
    session.add(AuditEntry(**fields, chain=chain_of(before, fields)))


def _last_link(session: Session) -> str:
    if session.get_bind().dialect.name == "postgresql":
        # Two writers must not link to the same entry; SQLite has one at a time.
        session.execute(text("LOCK TABLE audit_log IN EXCLUSIVE MODE"))
    return session.scalar(_LAST_LINK) or ""


@dataclass(frozen=True)
class Filter:
    """None: any. `subject` is found as what was created, too."""

    subject: str | None = None
    actor: str | None = None
    since: float | None = None


def after(session: Session, entry_id: int, wanted: Filter, limit: int) -> Sequence[AuditEntry]:
    """Entries with a greater id, oldest first."""
    query = select(AuditEntry).where(AuditEntry.id > entry_id).order_by(AuditEntry.id)
    return session.scalars(_of(query, wanted).limit(limit)).all()


def latest(session: Session, wanted: Filter, limit: int) -> Sequence[AuditEntry]:
    """The newest `limit` entries, oldest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    return session.scalars(_of(query, wanted)).all()[::-1]


def _of(query: Any, wanted: Filter) -> Any:
    if wanted.subject is not None:
        its = or_(AuditEntry.subject == wanted.subject, AuditEntry.created == wanted.subject)
        query = query.where(its)
    if wanted.actor is not None:
        query = query.where(AuditEntry.actor == wanted.actor)
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    return query


def _name_created(session: Session, _context: Any) -> None:
    request = _open.get()
    if request is None:
        return
    for row in session.new:
        if request.recorded:
            return
        kind = CREATED.get(type(row))
        if kind is not None:
            request.created = f"{kind}:{row.id}"
        elif isinstance(row, Version) and not request.subject.startswith("version:"):
            request.created = f"version:{row.name}@{row.version}"


event.listen(Session, "after_flush", _name_created)
