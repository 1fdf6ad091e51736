"""Queries over devices, their slots and their assignments."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import Assignment, Device, DeviceSlot


def require(session: Session, device_id: str) -> Device:
    """Raises NotFoundError."""
    device = session.get(Device, device_id)
    if device is None:
        raise NotFoundError(
            f"no device {device_id!r} has said hello",
            hint="`edgeloop device list` shows those that have; is its agent running and its "
            "broker this one?",
        )
    return device


def every(session: Session) -> Sequence[Device]:
    return session.scalars(select(Device).order_by(Device.id)).all()


def of_ids(session: Session, ids: Collection[str]) -> Sequence[Device]:
    return session.scalars(select(Device).where(Device.id.in_(ids))).all()


def count(session: Session) -> tuple[int, int]:
    """(all, online)."""
    total = session.scalar(select(func.count()).select_from(Device)) or 0
    online = session.scalar(select(func.count()).select_from(Device).where(Device.online)) or 0
    return total, online


def effective_labels(device: Device) -> dict[str, str]:
    """The agent's own labels with those set here over them; an empty string here removes one."""
    merged = {**device.agent_labels, **device.labels}
    return {key: value for key, value in merged.items() if value != ""}


def slots_by_device(session: Session) -> dict[str, dict[str, DeviceSlot]]:
    """device id → slot → row."""
    result: dict[str, dict[str, DeviceSlot]] = {}
    for row in session.scalars(select(DeviceSlot)):
        result.setdefault(row.device_id, {})[row.slot] = row
    return result


def slots_of(session: Session, device_id: str) -> Sequence[DeviceSlot]:
    query = select(DeviceSlot).where(DeviceSlot.device_id == device_id).order_by(DeviceSlot.slot)
    return session.scalars(query).all()


def assignments_of(session: Session, device_id: str) -> Sequence[Assignment]:
    query = select(Assignment).where(Assignment.device_id == device_id).order_by(Assignment.slot)
    return session.scalars(query).all()


def assignments_on(session: Session, slot: str) -> dict[str, Assignment]:
    """device id → its assignment of `slot`."""
    query = select(Assignment).where(Assignment.slot == slot)
    return {row.device_id: row for row in session.scalars(query)}


def assign(
    session: Session,
    device_id: str,
    slot: str,
    *,
    manifest_digest: str | None,
    rollout_id: int | None,
    probation: dict[str, Any],
    reason: str,
) -> None:
    row = session.get(Assignment, (device_id, slot))
    if row is None:
        row = Assignment(device_id=device_id, slot=slot)
        session.add(row)
    row.manifest_digest = manifest_digest
    row.rollout_id = rollout_id
    row.probation = probation
    row.reason = reason


def champions(
    session: Session, slot: str | None = None, digests: Iterable[str] | None = None
) -> dict[str, int]:
    """Manifest digest → how many slots of devices it is the champion of; of one slot or of all,
    and of `digests` or of whatever runs."""
    query = (
        select(DeviceSlot.champion_digest, func.count())
        .where(DeviceSlot.champion_digest.is_not(None))
        .group_by(DeviceSlot.champion_digest)
    )
    if slot is not None:
        query = query.where(DeviceSlot.slot == slot)
    if digests is not None:
        query = query.where(DeviceSlot.champion_digest.in_(list(digests)))
    return {str(digest): number for digest, number in session.execute(query)}


def behind(session: Session) -> Sequence[Device]:
    """Online devices that have not yet reported the revision that was made for them."""
    query = select(Device).where(
        Device.online, Device.desired_revision > 0, Device.revision_seen != Device.desired_revision
    )
    return session.scalars(query).all()


def ids_to_ask(session: Session, seen_since: float) -> Sequence[str]:
    """Devices that were told something and are online, or were heard since then; online first."""
    query = (
        select(Device.id)
        .where(Device.desired_revision > 0, or_(Device.online, Device.last_seen_at >= seen_since))
        .order_by(Device.online.desc(), Device.id)
    )
    return session.scalars(query).all()
