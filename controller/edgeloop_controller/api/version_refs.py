"""Versions by name: what documents say, and what requests ask for."""

from sqlalchemy.orm import Session

from edgeloop_controller.errors import RefusedInputError
from edgeloop_controller.services.desired import offer
from edgeloop_controller.store import versions
from edgeloop_protocol.messages import VersionRef


def split_version(text: str) -> tuple[str, str]:
    """NAME@VERSION. Raises RefusedInputError."""
    name, at, version = text.partition("@")
    if not (name and at and version):
        raise RefusedInputError(f"{text!r} is not NAME@VERSION", hint="for example watch@3")
    return name, version


def version_ref(session: Session, manifest_digest: str | None) -> VersionRef | None:
    """None for no digest, and for a version that this controller never published."""
    row = versions.by_digest(session, manifest_digest) if manifest_digest else None
    return offer(row).ref if row else None
