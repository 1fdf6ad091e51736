"""Telemetry windows for people and programs that read them a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from edgeloop_controller.store.tables import Window
from edgeloop_controller.store.telemetry import last_window_before


@dataclass(frozen=True)
class WindowFilter:
    """None: any. `since` and `until` are times of receipt, from the one up to the other."""

    device_id: str | None = None
    slot: str | None = None
    manifest_digest: str | None = None
    since: float | None = None
    until: float | None = None


def page(session: Session, wanted: WindowFilter, after: int, limit: int) -> Sequence[Window]:
    """Windows with a greater id, in order, without their sketches."""
    if wanted.since is not None:
        after = max(after, last_window_before(session, wanted.since))
    query = select(Window).where(Window.id > after).order_by(Window.id).limit(limit)
    if wanted.until is not None:
        query = query.where(Window.id <= last_window_before(session, wanted.until))
    if wanted.device_id is not None:
        query = query.where(Window.device_id == wanted.device_id)
    if wanted.slot is not None:
        query = query.where(Window.slot == wanted.slot)
    if wanted.manifest_digest is not None:
        query = query.where(Window.manifest_digest == wanted.manifest_digest)
    return session.scalars(query.options(defer(Window.sketches))).all()
