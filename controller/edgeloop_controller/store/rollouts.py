"""Rollouts and their members: rows, and the engine's values that they hold."""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BindParameter,
    Float,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import (
    Member,
    MemberPhase,
    RolloutState,
    RolloutStatus,
    RolloutTerms,
    ShadowState,
)
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store import shadow_phases
from edgeloop_controller.store.prepared import Prepared
from edgeloop_controller.store.tables import (
    Assignment,
    Device,
    DeviceSlot,
    Rollout,
    RolloutMember,
    table_of,
)

ACTIVE: Final = (RolloutStatus.RUNNING.value, RolloutStatus.PAUSED.value)
UNFINISHED: Final = (RolloutStatus.QUEUED.value, *ACTIVE)


def require(session: Session, rollout_id: int) -> Rollout:
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise NotFoundError(
            f"no rollout {rollout_id}", hint="`edgeloop rollout list` shows those there are"
        )
    return rollout


def next_id(session: Session) -> int:
    """Of the next rollout, if no other comes first: who enters its waves is drawn by it."""
    return (session.scalar(select(func.max(Rollout.id))) or 0) + 1


def every(session: Session, limit: int) -> Sequence[Rollout]:
    """Newest first."""
    return session.scalars(select(Rollout).order_by(Rollout.id.desc()).limit(limit)).all()


class RolloutRow(NamedTuple):
    """A rollout as the reconciler looks at it at every tick; to be changed, it is a `Rollout`."""

    id: int
    manifest_digest: str
    slot: str
    selector: str
    waves: list[Any]
    terms: dict[str, Any]
    status: str
    wave: int
    wave_started_at: float | None
    started_at: float
    ended_at: float | None
    verdict: str
    training_run_id: int | None
    change: int
    approvals: dict[str, Any]


_ROLLOUT: Final = table_of(Rollout)
_WITH_STATUS: Final = Prepared(
    select(*(_ROLLOUT.c[name] for name in RolloutRow._fields))
    .where(_ROLLOUT.c.status.in_(bindparam("statuses", expanding=True)))
    .order_by(_ROLLOUT.c.id.desc())
)


def rows_with_status(session: Session, statuses: Collection[str]) -> Sequence[RolloutRow]:
    """Newest first."""
    return [RolloutRow._make(row) for row in _WITH_STATUS.rows(session, statuses=statuses)]


def with_status(session: Session, statuses: Collection[str]) -> Sequence[Rollout]:
    """Newest first."""
    query = select(Rollout).where(Rollout.status.in_(statuses)).order_by(Rollout.id.desc())
    return session.scalars(query).all()


def ended(session: Session, limit: int) -> Sequence[Rollout]:
    """Newest first."""
    query = select(Rollout).where(Rollout.status.not_in(UNFINISHED)).order_by(Rollout.id.desc())
    return session.scalars(query.limit(limit)).all()


def of_run(session: Session, run_id: int) -> Rollout | None:
    """The newest rollout that a training run's candidate was given."""
    query = select(Rollout).where(Rollout.training_run_id == run_id).order_by(Rollout.id.desc())
    return session.scalars(query).first()


def active_of_run(session: Session, run_id: int) -> bool:
    rollout = of_run(session, run_id)
    return rollout is not None and rollout.status in UNFINISHED


def members_of(session: Session, rollout_id: int) -> dict[str, RolloutMember]:
    query = select(RolloutMember).where(RolloutMember.rollout_id == rollout_id)
    return {row.device_id: row for row in session.scalars(query)}


def memberships_of(
    session: Session, device_id: str, among: Collection[int]
) -> dict[int, RolloutMember]:
    """Of one device, by rollout: those `among` these, a bounded number."""
    query = select(RolloutMember).where(
        RolloutMember.device_id == device_id, RolloutMember.rollout_id.in_(among)
    )
    return {row.rollout_id: row for row in session.scalars(query)}


# Written out, so that the index of offered members serves.
_OFFERED: Final = literal_column(f"'{MemberPhase.OFFERED.value}'", String)
_HEARD_BEFORE: Final[BindParameter[float]] = bindparam("heard_before", type_=Float)
_SILENT_ABOUT_OFFER: Final = Prepared(
    select(Device.id)
    .join(RolloutMember, RolloutMember.device_id == Device.id)
    .join(
        Assignment,
        and_(
            Assignment.device_id == RolloutMember.device_id,
            Assignment.rollout_id == RolloutMember.rollout_id,
        ),
    )
    .outerjoin(
        DeviceSlot,
        and_(DeviceSlot.device_id == Assignment.device_id, DeviceSlot.slot == Assignment.slot),
    )
    .where(
        RolloutMember.phase == _OFFERED,
        or_(DeviceSlot.updated_at.is_(None), DeviceSlot.updated_at < _HEARD_BEFORE),
        Device.online,
        Device.desired_revision > 0,
    )
    .distinct()
    .order_by(Device.id)
)


def silent_about_offer(session: Session, heard_before: float) -> Sequence[str]:
    """Online devices that hold an offer that they have not settled, and whose slot was last heard
    of before that time."""
    rows = _SILENT_ABOUT_OFFER.rows(session, heard_before=heard_before)
    return [device_id for (device_id,) in rows]


def terms_of(rollout: Rollout | RolloutRow) -> RolloutTerms:
    return RolloutTerms.model_validate(rollout.terms)


def terms_document(terms: RolloutTerms) -> dict[str, Any]:
    return terms.model_dump(mode="json")


_MEMBER: Final = table_of(RolloutMember)
_MEMBER_COLUMNS: Final = (
    "device_id",
    "wave",
    "phase",
    "offered_at",
    "settled_at",
    "before_digest",
    "cause",
)
_MEMBERS: Final = Prepared(
    select(*(_MEMBER.c[name] for name in _MEMBER_COLUMNS))
    .where(_MEMBER.c.rollout_id == bindparam("rollout_id"))
    .order_by(_MEMBER.c.device_id)
)
_OF_MEMBER: Final = (_MEMBER.c.rollout_id == bindparam("of_rollout")) & (
    _MEMBER.c.device_id == bindparam("of_device")
)
_MEMBER_VALUES: Final[dict[str, BindParameter[Any]]] = {
    name: bindparam(name) for name in _MEMBER_COLUMNS
}
_ADD_MEMBERS: Final = Prepared(
    insert(_MEMBER).values({"rollout_id": bindparam("of_rollout")} | _MEMBER_VALUES)
)
_MOVE_MEMBERS: Final = Prepared(update(_MEMBER).where(_OF_MEMBER).values(_MEMBER_VALUES))
_DROP_MEMBERS: Final = Prepared(delete(_MEMBER).where(_OF_MEMBER))


def state_of(session: Session, rollout: Rollout | RolloutRow) -> RolloutState:
    members = {
        row[0]: Member(row[0], row[1], MemberPhase(row[2]), *row[3:])
        for row in _MEMBERS.rows(session, rollout_id=rollout.id)
    }
    has_phase = "shadow" in rollout.terms
    return RolloutState(
        status=RolloutStatus(rollout.status),
        wave=rollout.wave,
        wave_started_at=rollout.wave_started_at,
        members=members,
        verdict=rollout.verdict,
        approved=frozenset(map(int, rollout.approvals)),
        shadow=shadow_phases.of_rollout(session, rollout.id) if has_phase else ShadowState(),
    )


def save_state(
    session: Session, rollout: Rollout, before: RolloutState, state: RolloutState, now: float
) -> None:
    """Write what changed since `before`, which the database holds; `ended_at` is set when the
    status leaves queued, running and paused."""
    rollout.status = state.status.value
    rollout.wave = state.wave
    rollout.wave_started_at = state.wave_started_at
    rollout.verdict = state.verdict
    if state.shadow is not before.shadow:
        rollout.shadow = shadow_phases.to_document(state.shadow)
    rollout.change += 1
    if rollout.ended_at is None and rollout.status not in UNFINISHED:
        rollout.ended_at = now
    session.flush()
    known = before.members
    moved = [m for device_id, m in state.members.items() if known.get(device_id) is not m]
    its: dict[str, Any] = {"of_rollout": rollout.id}
    gone = known.keys() - state.members.keys()
    new = [its | _columns(m) for m in moved if m.device_id not in known]
    old = [its | _columns(m) for m in moved if m.device_id in known]
    _DROP_MEMBERS.run(session, [its | {"of_device": device_id} for device_id in gone])
    _ADD_MEMBERS.run(session, new)
    _MOVE_MEMBERS.run(session, old)


def _columns(member: Member) -> dict[str, Any]:
    return {
        "of_device": member.device_id,
        "device_id": member.device_id,
        "wave": member.wave,
        "phase": member.phase.value,
        "offered_at": member.offered_at,
        "settled_at": member.settled_at,
        "before_digest": member.before_digest,
        "cause": member.cause,
    }
