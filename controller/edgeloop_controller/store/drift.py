"""Queries over drift alarms."""

import math
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeloop_controller.core.drift import Cause, Scope
from edgeloop_controller.store.tables import DriftAlarm


def open_alarms(session: Session) -> Sequence[DriftAlarm]:
    query = select(DriftAlarm).where(DriftAlarm.cleared_at.is_(None)).order_by(DriftAlarm.id)
    return session.scalars(query).all()


def latest(session: Session, limit: int) -> Sequence[DriftAlarm]:
    """Open and past ones, newest first."""
    return session.scalars(select(DriftAlarm).order_by(DriftAlarm.id.desc()).limit(limit)).all()


def open_world_changed(session: Session, slot: str, manifest_digest: str) -> DriftAlarm | None:
    """The oldest open alarm that says that the world of a version changed."""
    query = (
        select(DriftAlarm)
        .where(
            DriftAlarm.slot == slot,
            DriftAlarm.manifest_digest == manifest_digest,
            DriftAlarm.cause == Cause.WORLD_CHANGED.value,
            DriftAlarm.cleared_at.is_(None),
        )
        .order_by(DriftAlarm.id)
    )
    return session.scalars(query).first()


def untrusted_until(session: Session, slot: str) -> dict[str, float]:
    """device id → until when its samples are not to be trained on, for a sensor was broken.

    Infinity while the alarm is open. The fault began some time before its alarm was raised, so
    what came before the alarm counts as broken too.
    """
    query = (
        select(DriftAlarm)
        .where(
            DriftAlarm.slot == slot,
            DriftAlarm.scope == Scope.DEVICE.value,
            DriftAlarm.cause == Cause.SENSOR_FAULT.value,
        )
        .order_by(DriftAlarm.id)
    )
    result: dict[str, float] = {}
    for alarm in session.scalars(query):
        until = math.inf if alarm.cleared_at is None else alarm.cleared_at
        result[alarm.key] = max(until, result.get(alarm.key, 0.0))
    return result
