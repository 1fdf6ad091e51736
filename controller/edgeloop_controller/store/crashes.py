"""Runners that were lost, as devices told."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeloop_controller.store.tables import Event

KIND: Final = "device.runner_lost"


class Crash(NamedTuple):
    device_id: str
    slot: str | None
    manifest_digest: str | None


def last_before(session: Session, at: float) -> int:
    """The id of the last one that was told before then; 0: none."""
    query = select(func.max(Event.id)).where(Event.kind == KIND, Event.at < at)
    return session.scalar(query) or 0


def between(session: Session, after_id: int, through_id: int) -> Sequence[Crash]:
    query = (
        select(Event.device_id, Event.data)
        .where(Event.kind == KIND, Event.id > after_id, Event.id <= through_id)
        .order_by(Event.id)
    )
    found = []
    for device_id, data in session.execute(query):
        version = data.get("version") or {}
        if device_id is not None:
            found.append(Crash(device_id, data.get("slot"), version.get("manifest_digest")))
    return found
