"""Rollouts and their members: rows, and the engine's values that they hold."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import (
    Member,
    MemberPhase,
    RolloutState,
    RolloutStatus,
    RolloutTerms,
)
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import (
    Assignment,
    Device,
    DeviceSlot,
    Rollout,
    RolloutMember,
)

ACTIVE: Final = (RolloutStatus.RUNNING.value, RolloutStatus.PAUSED.value)


def require(session: Session, rollout_id: int) -> Rollout:
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise NotFoundError(
            f"no rollout {rollout_id}", hint="`edgeloop rollout list` shows those there are"
        )
    return rollout


def every(session: Session, limit: int) -> Sequence[Rollout]:
    """Newest first."""
    return session.scalars(select(Rollout).order_by(Rollout.id.desc()).limit(limit)).all()


def with_status(session: Session, statuses: Collection[str]) -> Sequence[Rollout]:
    """Newest first."""
    query = select(Rollout).where(Rollout.status.in_(statuses)).order_by(Rollout.id.desc())
    return session.scalars(query).all()


def of_run(session: Session, run_id: int) -> Rollout | None:
    """The newest rollout that a training run's candidate was given."""
    query = select(Rollout).where(Rollout.training_run_id == run_id).order_by(Rollout.id.desc())
    return session.scalars(query).first()


def active_of_run(session: Session, run_id: int) -> bool:
    rollout = of_run(session, run_id)
    return rollout is not None and rollout.status in ACTIVE


def members_of(session: Session, rollout_id: int) -> dict[str, RolloutMember]:
    query = select(RolloutMember).where(RolloutMember.rollout_id == rollout_id)
    return {row.device_id: row for row in session.scalars(query)}


def held_devices(session: Session, slot: str) -> dict[str, int]:
    """device id → the active rollout that has offered it something on `slot`."""
    query = (
        select(RolloutMember.device_id, RolloutMember.rollout_id)
        .join(Rollout, Rollout.id == RolloutMember.rollout_id)
        .where(
            Rollout.slot == slot,
            Rollout.status.in_(ACTIVE),
            RolloutMember.phase.in_([MemberPhase.OFFERED.value, MemberPhase.COMMITTED.value]),
        )
    )
    return {row.device_id: row.rollout_id for row in session.execute(query)}


def silent_about_offer(session: Session, heard_before: float) -> Sequence[Device]:
    """Online devices that hold an offer that they have not settled, and whose slot was last heard
    of before that time."""
    unsettled = (
        select(Assignment.device_id)
        .join(
            RolloutMember,
            and_(
                RolloutMember.device_id == Assignment.device_id,
                RolloutMember.rollout_id == Assignment.rollout_id,
            ),
        )
        .outerjoin(
            DeviceSlot,
            and_(DeviceSlot.device_id == Assignment.device_id, DeviceSlot.slot == Assignment.slot),
        )
        .where(
            RolloutMember.phase == MemberPhase.OFFERED.value,
            or_(DeviceSlot.updated_at.is_(None), DeviceSlot.updated_at < heard_before),
        )
    )
    query = select(Device).where(
        Device.online, Device.desired_revision > 0, Device.id.in_(unsettled)
    )
    return session.scalars(query).all()


def terms_of(rollout: Rollout) -> RolloutTerms:
    return RolloutTerms.model_validate(rollout.terms)


def terms_document(terms: RolloutTerms) -> dict[str, Any]:
    return terms.model_dump(mode="json")


def state_of(session: Session, rollout: Rollout) -> RolloutState:
    members = {
        row.device_id: Member(
            device_id=row.device_id,
            wave=row.wave,
            phase=MemberPhase(row.phase),
            offered_at=row.offered_at,
            settled_at=row.settled_at,
            before_digest=row.before_digest,
            cause=row.cause,
        )
        for row in members_of(session, rollout.id).values()
    }
    return RolloutState(
        status=RolloutStatus(rollout.status),
        wave=rollout.wave,
        wave_started_at=rollout.wave_started_at,
        members=members,
        verdict=rollout.verdict,
    )


def save_state(session: Session, rollout: Rollout, state: RolloutState, now: float) -> None:
    """Write what changed; `ended_at` is set when the status leaves running and paused."""
    rollout.status = state.status.value
    rollout.wave = state.wave
    rollout.wave_started_at = state.wave_started_at
    rollout.verdict = state.verdict
    if rollout.ended_at is None and rollout.status not in ACTIVE:
        rollout.ended_at = now
    rows = members_of(session, rollout.id)
    for device_id, member in state.members.items():
        row = rows.get(device_id)
        if row is None:
            row = RolloutMember(rollout_id=rollout.id, device_id=device_id)
            session.add(row)
        row.wave = member.wave
        row.phase = member.phase.value
        row.offered_at = member.offered_at
        row.settled_at = member.settled_at
        row.before_digest = member.before_digest
        row.cause = member.cause
