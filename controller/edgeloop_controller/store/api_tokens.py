"""API tokens, as they are kept.

Invariants: a name is held by one valid token at a time; revoked and ended ones stay, for the audit
log names them.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.core.access import Role
from edgeloop_controller.core.api_tokens import TokenFacts
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import ApiToken

_BY_DIGEST: Final = Prepared(
    select(ApiToken.name, ApiToken.roles, ApiToken.ends_at, ApiToken.revoked_at).where(
        ApiToken.digest == bindparam("digest")
    )
)


def by_digest(session: Session, digest: str) -> TokenFacts | None:
    for name, roles, ends_at, revoked_at in _BY_DIGEST.rows(session, digest=digest):
        return TokenFacts(name, frozenset(map(Role, roles)), ends_at, revoked_at)
    return None


def every(session: Session) -> Sequence[ApiToken]:
    """By name, the oldest first."""
    return session.scalars(select(ApiToken).order_by(ApiToken.name, ApiToken.id)).all()


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(ApiToken)) or 0


def valid_named(session: Session, name: str, now: float) -> ApiToken | None:
    return session.scalars(
        select(ApiToken).where(
            ApiToken.name == name,
            ApiToken.revoked_at.is_(None),
            or_(ApiToken.ends_at.is_(None), ApiToken.ends_at > now),
        )
    ).first()


def any_valid(session: Session, now: float) -> bool:
    found = session.scalars(
        select(ApiToken.id)
        .where(
            ApiToken.revoked_at.is_(None),
            or_(ApiToken.ends_at.is_(None), ApiToken.ends_at > now),
        )
        .limit(1)
    )
    return found.first() is not None


def add(session: Session, facts: TokenFacts, digest: str, by: str, now: float) -> ApiToken:
    row = ApiToken(
        name=facts.name,
        digest=digest,
        roles=sorted(facts.roles),
        created_at=now,
        created_by=by,
        ends_at=facts.ends_at,
        revoked_at=None,
    )
    session.add(row)
    session.flush()
    return row


def revoke(session: Session, name: str, now: float) -> int:
    """How many of that name were not revoked yet."""
    found = session.execute(
        update(ApiToken)
        .where(ApiToken.name == name, ApiToken.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return int(getattr(found, "rowcount", 0))
