"""Digests to names, for documents."""

from sqlalchemy.orm import Session

from edgeloop_controller.services.desired import offer
from edgeloop_controller.store import versions
from edgeloop_protocol.messages import VersionRef


def version_ref(session: Session, manifest_digest: str | None) -> VersionRef | None:
    """None for no digest, and for a version that this controller never published."""
    row = versions.by_digest(session, manifest_digest) if manifest_digest else None
    return offer(row).ref if row else None
