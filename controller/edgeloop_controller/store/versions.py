"""Queries over published versions. A row never changes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import Version


def find(session: Session, name: str, version: str) -> Version | None:
    return session.scalar(select(Version).where(Version.name == name, Version.version == version))


def require(session: Session, name: str, version: str) -> Version:
    """Raises NotFoundError that says what there is."""
    row = find(session, name, version)
    if row is not None:
        return row
    known = [v.version for v in of_model(session, name)]
    if known:
        raise NotFoundError(
            f"model {name} has no version {version!r}", hint=f"it has {', '.join(known[-10:])}"
        )
    raise _no_model(session, name)


def of_model(session: Session, name: str) -> Sequence[Version]:
    """Oldest first."""
    query = select(Version).where(Version.name == name).order_by(Version.published_at)
    return session.scalars(query).all()


def require_model(session: Session, name: str) -> Sequence[Version]:
    """All versions, oldest first; raises NotFoundError when there is none."""
    rows = of_model(session, name)
    if not rows:
        raise _no_model(session, name)
    return rows


def every(session: Session) -> Sequence[Version]:
    return session.scalars(select(Version).order_by(Version.name, Version.published_at)).all()


def by_digest(session: Session, manifest_digest: str) -> Version | None:
    return session.get(Version, manifest_digest)


def of_run(session: Session, run_id: int) -> Version | None:
    """The version that a training run published."""
    return session.scalar(select(Version).where(Version.training_run_id == run_id))


def _no_model(session: Session, name: str) -> NotFoundError:
    names = sorted(set(session.scalars(select(Version.name).distinct())))
    shown = ", ".join(names[:10]) or "none yet: edgeloop model publish"
    return NotFoundError(f"no model {name!r} is published", hint=f"published: {shown}")
