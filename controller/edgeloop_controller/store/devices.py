"""Queries over devices, their slots and their assignments.

Invariants: each transaction that writes what decisions are taken by (labels, inventory, presence,
reported and desired state, assignments) gives the device the next `change`. Writing transactions
of a controller do not overlap (store.engine), so whoever has read up to one number finds
everything that was committed since above it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Text, bindparam, cast, func, insert, not_, or_, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.tables import Assignment, Device, DeviceSlot, table_of

IDS_A_QUERY: Final = 1000

# Asked at every tick, and made once: making a statement costs more than running these.
_LAST_CHANGE: Final = select(func.max(Device.change))
_EARLIEST_SEEN: Final = select(func.min(Device.last_seen_at)).where(Device.online)
_DESIRED_OF: Final = (
    select(Device.id, Device.desired, Device.desired_revision, Device.revision_seen)
    .where(Device.id.in_(bindparam("ids", expanding=True)))
    .order_by(Device.id)
)
_BEHIND: Final = (
    select(Device.id)
    .where(
        Device.online, Device.desired_revision > 0, Device.revision_seen != Device.desired_revision
    )
    .order_by(Device.id)
)


def next_change(session: Session) -> int:
    """The number for what this writing transaction changes."""
    return last_change(session) + 1


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


def count(session: Session) -> tuple[int, int]:
    """(all, online)."""
    total = session.scalar(select(func.count()).select_from(Device)) or 0
    online = session.scalar(select(func.count()).select_from(Device).where(Device.online)) or 0
    return total, online


def effective_labels(device: Device) -> dict[str, str]:
    return merged_labels(device.agent_labels, device.labels)


def merged_labels(of_agent: Mapping[str, str], set_here: Mapping[str, str]) -> dict[str, str]:
    """The agent's own labels with those set here over them; an empty string here removes one."""
    merged = {**of_agent, **set_here}
    return {key: value for key, value in merged.items() if value != ""}


def last_change(session: Session) -> int:
    return session.scalar(_LAST_CHANGE) or 0


def changed(session: Session, after: int) -> Iterator[Any]:
    """Rows of devices with a greater `change`, in the order of their ids; JSON as text."""
    query = (
        select(
            Device.id,
            Device.online,
            Device.quarantine,
            Device.revision_seen,
            Device.desired_revision,
            cast(Device.agent_labels, Text).label("agent_labels"),
            cast(Device.labels, Text).label("labels"),
            cast(Device.inventory, Text).label("inventory"),
        )
        .where(Device.change > after)
        .order_by(Device.id)
    )
    yield from session.execute(query)


def slots_changed(session: Session, after: int) -> Iterator[Any]:
    """Device, slot and reported document, as text, of devices with a greater `change`."""
    query = select(DeviceSlot.device_id, DeviceSlot.slot, cast(DeviceSlot.reported, Text))
    yield from session.execute(query.join(Device).where(Device.change > after))


def assignments_changed(session: Session, after: int) -> Iterator[Any]:
    """Device, slot and manifest digest of devices with a greater `change`."""
    query = select(Assignment.device_id, Assignment.slot, Assignment.manifest_digest)
    yield from session.execute(query.join(Device).where(Device.change > after))


def running_changed(session: Session, after: int) -> Iterator[Any]:
    """Of devices with a greater `change`, a row a slot, or one without: the device's id, its labels
    as text, slot and champion."""
    query = (
        select(
            Device.id,
            cast(Device.agent_labels, Text).label("agent_labels"),
            cast(Device.labels, Text).label("labels"),
            DeviceSlot.slot,
            DeviceSlot.champion_digest,
        )
        .outerjoin(DeviceSlot, DeviceSlot.device_id == Device.id)
        .where(Device.change > after)
        .order_by(Device.id, DeviceSlot.slot)
    )
    yield from session.execute(query)


def slots_of(session: Session, device_id: str) -> Sequence[DeviceSlot]:
    query = select(DeviceSlot).where(DeviceSlot.device_id == device_id).order_by(DeviceSlot.slot)
    return session.scalars(query).all()


def assignments_of(session: Session, device_id: str) -> Sequence[Assignment]:
    query = select(Assignment).where(Assignment.device_id == device_id).order_by(Assignment.slot)
    return session.scalars(query).all()


def assignments_among(session: Session, ids: Collection[str]) -> Iterator[Assignment]:
    """Of the devices in `ids`, in the order of device and slot."""
    query = select(Assignment).order_by(Assignment.device_id, Assignment.slot)
    for some in _portions(sorted(ids)):
        yield from session.scalars(query.where(Assignment.device_id.in_(some)))


def desired_of(session: Session, ids: Collection[str]) -> Iterator[Any]:
    """Rows of id, desired, desired_revision and revision_seen of those that there are, by id."""
    for some in _portions(sorted(ids)):
        yield from session.execute(_DESIRED_OF, {"ids": some})


def save_desired(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `key` (the device's id), `desired` and `desired_revision`."""
    if rows:
        table = table_of(Device)
        statement = update(table).where(table.c.id == bindparam("key"))
        session.execute(statement.values(change=next_change(session)), rows)


def save_assignments(
    session: Session, rows: Collection[dict[str, Any]], known: Collection[tuple[str, str]]
) -> None:
    """Rows of the columns of `assignments`; `known` are the (device, slot) pairs that there are."""
    table = table_of(Assignment)
    keys = set(known)
    new = [row for row in rows if (row["device_id"], row["slot"]) not in keys]
    if new:
        session.execute(insert(table), new)
    moved = [
        {"of_device": row["device_id"], "of_slot": row["slot"]} | row
        for row in rows
        if (row["device_id"], row["slot"]) in keys
    ]
    if moved:
        its = (table.c.device_id == bindparam("of_device")) & (table.c.slot == bindparam("of_slot"))
        session.execute(update(table).where(its), moved)


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


def behind(session: Session) -> Sequence[str]:
    """Online devices that have not yet reported the revision that was made for them."""
    return session.scalars(_BEHIND).all()


def behind_while_offline(
    session: Session, seen_since: float, after_id: str, limit: int
) -> Sequence[str]:
    """The same of those that count as offline and were heard since then; the next `limit`."""
    query = select(Device.id).where(
        not_(Device.online),
        Device.desired_revision > 0,
        Device.revision_seen != Device.desired_revision,
        Device.last_seen_at >= seen_since,
        Device.id > after_id,
    )
    return session.scalars(query.order_by(Device.id).limit(limit)).all()


def silent(session: Session, seen_before: float) -> Sequence[tuple[str, float]]:
    """(id, last seen at) of online devices that nothing came from since then."""
    query = select(Device.id, Device.last_seen_at).where(
        Device.online, Device.last_seen_at < seen_before
    )
    return [
        (device_id, seen_at) for device_id, seen_at in session.execute(query.order_by(Device.id))
    ]


def earliest_seen(session: Session) -> float | None:
    """When the online device that was silent for longest was heard; None: none is online."""
    return session.scalar(_EARLIEST_SEEN)


def set_offline(session: Session, ids: Collection[str]) -> None:
    change = next_change(session)
    for some in _portions(sorted(ids)):
        table = table_of(Device)
        session.execute(
            update(table).where(table.c.id.in_(some)).values(online=False, change=change)
        )


def ids_to_ask(session: Session, seen_since: float) -> Sequence[str]:
    """Devices that were told something and are online, or were heard since then; online first."""
    query = (
        select(Device.id)
        .where(Device.desired_revision > 0, or_(Device.online, Device.last_seen_at >= seen_since))
        .order_by(Device.online.desc(), Device.id)
    )
    return session.scalars(query).all()


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes a bounded number of values."""
    for first in range(0, len(ids), IDS_A_QUERY):
        yield ids[first : first + IDS_A_QUERY]
