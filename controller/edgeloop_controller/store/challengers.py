"""Challengers, the devices that have them, and what these told of them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import (
    Challenger,
    ChallengerAssignment,
    DeviceSlot,
    ShadowWindow,
    table_of,
)

IDS_A_QUERY: Final = 1000
_ANY: Final = Prepared(select(table_of(ChallengerAssignment).c.device_id).limit(1))
_ACTIVE: Final = Prepared(
    select(table_of(Challenger).c.id)
    .where(table_of(Challenger).c.ended_at.is_(None), table_of(Challenger).c.rollout_id.is_(None))
    .order_by("id")
)


def require(session: Session, challenger_id: int) -> Challenger:
    """Raises NotFoundError."""
    challenger = session.get(Challenger, challenger_id)
    if challenger is None:
        raise NotFoundError(
            f"no challenger {challenger_id}",
            hint="`edgeloop challenger list` shows those there are",
        )
    return challenger


def every(session: Session, limit: int) -> Sequence[Challenger]:
    """Newest first."""
    return session.scalars(select(Challenger).order_by(Challenger.id.desc()).limit(limit)).all()


def active_ids(session: Session) -> tuple[int, ...]:
    """Of those that no rollout owns; oldest first."""
    return tuple(challenger_id for (challenger_id,) in _ACTIVE.rows(session))


def active(session: Session) -> Sequence[Challenger]:
    """That no rollout owns; oldest first."""
    query = select(Challenger).where(Challenger.ended_at.is_(None), Challenger.rollout_id.is_(None))
    return session.scalars(query.order_by(Challenger.id)).all()


def active_of_rollouts(session: Session) -> Sequence[Challenger]:
    """Oldest first."""
    query = select(Challenger).where(
        Challenger.ended_at.is_(None), Challenger.rollout_id.is_not(None)
    )
    return session.scalars(query.order_by(Challenger.id)).all()


def of_rollout(session: Session, rollout_id: int) -> Challenger | None:
    """The one that a rollout owns."""
    return session.scalars(select(Challenger).where(Challenger.rollout_id == rollout_id)).first()


def holders(session: Session, challenger_id: int) -> set[str]:
    """The devices that have it."""
    table = ChallengerAssignment
    return set(session.scalars(select(table.device_id).where(table.challenger_id == challenger_id)))


def any_assigned(session: Session) -> bool:
    """Whether any device has one."""
    return _ANY.scalar(session) is not None


def assigned_among(session: Session, ids: Collection[str]) -> Iterator[tuple[str, str, Challenger]]:
    """(device, slot, challenger) of the devices in `ids`, in the order of device and slot."""
    if not any_assigned(session):
        return
    query = (
        select(ChallengerAssignment.device_id, ChallengerAssignment.slot, Challenger)
        .join(Challenger, Challenger.id == ChallengerAssignment.challenger_id)
        .order_by(ChallengerAssignment.device_id, ChallengerAssignment.slot)
    )
    ordered = sorted(ids)
    for first in range(0, len(ordered), IDS_A_QUERY):
        some = ordered[first : first + IDS_A_QUERY]
        for row in session.execute(query.where(ChallengerAssignment.device_id.in_(some))):
            yield row[0], row[1], row[2]


def reported(session: Session, challenger: Challenger) -> dict[str, dict[str, Any]]:
    """By device that has it, what the device reported of it: a ChallengerReported document, empty
    before it did."""
    of_slot = (DeviceSlot.device_id == ChallengerAssignment.device_id) & (
        DeviceSlot.slot == ChallengerAssignment.slot
    )
    query = (
        select(ChallengerAssignment.device_id, DeviceSlot.reported)
        .outerjoin(DeviceSlot, of_slot)
        .where(ChallengerAssignment.challenger_id == challenger.id)
    )
    found = {
        device_id: (slot or {}).get("challenger") for device_id, slot in session.execute(query)
    }
    return {
        device_id: document if document and _is_of(document, challenger) else {}
        for device_id, document in found.items()
    }


def _is_of(document: dict[str, Any], challenger: Challenger) -> bool:
    return bool(document["version"]["manifest_digest"] == challenger.manifest_digest)


def assign(session: Session, rows: dict[tuple[str, str], int | None]) -> None:
    """(device, slot) → challenger, or None for none."""
    table = table_of(ChallengerAssignment)
    its = (table.c.device_id == bindparam("of_device")) & (table.c.slot == bindparam("of_slot"))
    keys = [{"of_device": device_id, "of_slot": slot} for device_id, slot in rows]
    if keys:
        session.execute(delete(table).where(its), keys)
    new = [
        {"device_id": device_id, "slot": slot, "challenger_id": challenger_id}
        for (device_id, slot), challenger_id in rows.items()
        if challenger_id is not None
    ]
    if new:
        session.execute(insert(table), new)


@dataclass(frozen=True)
class Seen:
    """What one device told of a challenger, added up; latency and memory are the largest."""

    count: int
    errors: int
    nonfinite: int
    disagreements: int
    skipped: int
    cpu_s: float
    span_s: float
    latency_p95_us: float
    memory_bytes: int


def seen(session: Session, challenger: Challenger) -> dict[str, Seen]:
    """By device, of the time that it challenges."""
    row = ShadowWindow
    sums = (row.count, row.errors, row.nonfinite, row.disagreements, row.skipped)
    query = (
        select(
            row.device_id,
            *(func.sum(column) for column in sums),
            func.sum(row.cpu_s),
            func.sum(row.span_s),
            func.max(row.latency_p95_us),
            func.max(row.memory_bytes),
        )
        .where(
            row.manifest_digest == challenger.manifest_digest,
            row.slot == challenger.slot,
            row.received_at >= challenger.started_at,
        )
        .group_by(row.device_id)
    )
    if challenger.ended_at is not None:
        query = query.where(row.received_at <= challenger.ended_at)
    return {str(found[0]): Seen(*tuple(found)[1:]) for found in session.execute(query)}
