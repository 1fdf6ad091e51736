"""Queries over published versions. A row never changes."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import Version, table_of


class VersionRow(NamedTuple):
    """A `Version`, without what the ORM needs to follow its changes: it has none."""

    manifest_digest: str
    name: str
    version: str
    artifact_digest: str
    artifact_size_bytes: int
    manifest_size_bytes: int
    published_at: float
    training_run_id: int | None


_VERSION: Final = table_of(Version).c
_BY_DIGEST: Final = Prepared(
    select(*(_VERSION[name] for name in VersionRow._fields)).where(
        _VERSION.manifest_digest == bindparam("digest")
    )
)


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


def row_by_digest(session: Session, manifest_digest: str) -> VersionRow | None:
    found = _BY_DIGEST.rows(session, digest=manifest_digest)
    return VersionRow._make(found[0]) if found else None


def of_run(session: Session, run_id: int) -> Version | None:
    """The version that a training run published."""
    return session.scalar(select(Version).where(Version.training_run_id == run_id))


def _no_model(session: Session, name: str) -> NotFoundError:
    names = sorted(set(session.scalars(select(Version.name).distinct())))
    shown = ", ".join(names[:10]) or "none yet: edgeloop model publish"
    return NotFoundError(f"no model {name!r} is published", hint=f"published: {shown}")
