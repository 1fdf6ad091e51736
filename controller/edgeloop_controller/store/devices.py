"""Queries over devices and their slots.

Invariants: each transaction that writes what decisions are taken by (labels, inventory, presence,
reported and desired state, store.assignments) gives the device the next `change`. Writing
transactions of a controller do not overlap (store.engine), so whoever has read up to one number
finds everything that was committed since above it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, Text, bindparam, cast, func, not_, or_, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.prepared import Prepared, Row
from edgeloop_controller.store.tables import Device, DeviceSlot, table_of

IDS_A_QUERY: Final = 1000

# Asked at every tick, or of every batch of messages.
_DEVICE: Final = table_of(Device).c
_SLOT: Final = table_of(DeviceSlot).c
_IDS: Final[BindParameter[str]] = bindparam("ids", expanding=True)
_AFTER: Final = _DEVICE.change > bindparam("after")
_LAST_CHANGE: Final = Prepared(select(func.max(_DEVICE.change)))
_EARLIEST_SEEN: Final = Prepared(select(func.min(_DEVICE.last_seen_at)).where(_DEVICE.online))
_DESIRED_OF: Final = Prepared(
    select(_DEVICE.id, _DEVICE.desired, _DEVICE.desired_revision, _DEVICE.revision_seen)
    .where(_DEVICE.id.in_(_IDS))
    .order_by(_DEVICE.id)
)
_BEHIND: Final = Prepared(
    select(_DEVICE.id)
    .where(
        _DEVICE.online,
        _DEVICE.desired_revision > 0,
        _DEVICE.revision_seen != _DEVICE.desired_revision,
    )
    .order_by(_DEVICE.id)
)
_CHANGED: Final = Prepared(
    select(
        _DEVICE.id,
        _DEVICE.online,
        _DEVICE.quarantine,
        _DEVICE.revision_seen,
        _DEVICE.desired_revision,
        cast(_DEVICE.agent_labels, Text),
        cast(_DEVICE.labels, Text),
        cast(_DEVICE.inventory, Text),
    )
    .where(_AFTER)
    .order_by(_DEVICE.id)
)
_SLOTS_CHANGED: Final = Prepared(
    select(_SLOT.device_id, _SLOT.slot, cast(_SLOT.reported, Text))
    .join(table_of(Device), _SLOT.device_id == _DEVICE.id)
    .where(_AFTER)
)
_SAVE_DESIRED: Final = Prepared(
    update(table_of(Device))
    .where(_DEVICE.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("desired", "desired_revision", "change")})
)


class ChangedRow(NamedTuple):
    """A device that decisions see anew; its documents as text."""

    id: str
    online: bool
    quarantine: str
    revision_seen: int
    desired_revision: int
    agent_labels: str
    labels: str
    inventory: str


class DesiredRow(NamedTuple):
    id: str
    desired: list[dict[str, Any]]
    desired_revision: int
    revision_seen: int


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
    return _LAST_CHANGE.scalar(session) or 0


def changed(session: Session, after: int) -> Iterator[ChangedRow]:
    """Rows of devices with a greater `change`, in the order of their ids; JSON as text."""
    yield from map(ChangedRow._make, _CHANGED.rows(session, after=after))


def slots_changed(session: Session, after: int) -> Sequence[Row]:
    """Device, slot and reported document, as text, of devices with a greater `change`."""
    return _SLOTS_CHANGED.rows(session, after=after)


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


def desired_of(session: Session, ids: Collection[str]) -> Iterator[DesiredRow]:
    """Of those that there are, by id."""
    for some in portions(sorted(ids)):
        yield from map(DesiredRow._make, _DESIRED_OF.rows(session, ids=some))


def save_desired(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `key` (the device's id), `desired` and `desired_revision`."""
    if rows:
        change = next_change(session)
        _SAVE_DESIRED.run(session, [row | {"change": change} for row in rows])


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


def running_other(session: Session, slot: str, manifest_digest: str) -> set[str]:
    """Devices whose champion on the slot is of another version."""
    query = select(DeviceSlot.device_id).where(
        DeviceSlot.slot == slot, DeviceSlot.champion_digest != manifest_digest
    )
    return set(session.scalars(query))


def behind(session: Session) -> Sequence[str]:
    """Online devices that have not yet reported the revision that was made for them."""
    return [device_id for (device_id,) in _BEHIND.rows(session)]


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
    seen_at: float | None = _EARLIEST_SEEN.scalar(session)
    return seen_at


def set_offline(session: Session, ids: Collection[str]) -> None:
    change = next_change(session)
    for some in portions(sorted(ids)):
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


def portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """A statement takes a bounded number of values."""
    for first in range(0, len(ids), IDS_A_QUERY):
        yield ids[first : first + IDS_A_QUERY]
