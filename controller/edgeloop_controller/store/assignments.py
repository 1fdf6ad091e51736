"""What slots of devices shall run: rows of assignments.

Invariants: who writes them writes the desired state of the device too, and with it its `change`
(store.devices).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, bindparam, insert, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.store.devices import portions
from edgeloop_controller.store.prepared import Prepared, Row
from edgeloop_controller.store.tables import Assignment, Device, table_of

_DEVICE: Final = table_of(Device).c
_ASSIGNMENT: Final = table_of(Assignment).c
_IDS: Final[BindParameter[str]] = bindparam("ids", expanding=True)
_AFTER: Final = _DEVICE.change > bindparam("after")
_CHANGED: Final = Prepared(
    select(_ASSIGNMENT.device_id, _ASSIGNMENT.slot, _ASSIGNMENT.manifest_digest)
    .join(table_of(Device), _ASSIGNMENT.device_id == _DEVICE.id)
    .where(_AFTER)
)
_AMONG: Final = Prepared(
    select(
        _ASSIGNMENT.device_id,
        _ASSIGNMENT.slot,
        _ASSIGNMENT.manifest_digest,
        _ASSIGNMENT.rollout_id,
        _ASSIGNMENT.probation,
        _ASSIGNMENT.reason,
    )
    .where(_ASSIGNMENT.device_id.in_(_IDS))
    .order_by(_ASSIGNMENT.device_id, _ASSIGNMENT.slot)
)
_ASSIGNED: Final[dict[str, BindParameter[Any]]] = {
    name: bindparam(name)
    for name in ("device_id", "slot", "manifest_digest", "rollout_id", "probation", "reason")
}
_ADD: Final = Prepared(insert(table_of(Assignment)).values(_ASSIGNED))
_MOVE: Final = Prepared(
    update(table_of(Assignment))
    .where(
        _ASSIGNMENT.device_id == bindparam("of_device"), _ASSIGNMENT.slot == bindparam("of_slot")
    )
    .values(_ASSIGNED)
)


class AssignmentRow(NamedTuple):
    device_id: str
    slot: str
    manifest_digest: str | None
    rollout_id: int | None
    probation: dict[str, Any]
    reason: str


def changed(session: Session, after: int) -> Sequence[Row]:
    """Device, slot and manifest digest of devices with a greater `change`."""
    return _CHANGED.rows(session, after=after)


def of_device(session: Session, device_id: str) -> Sequence[Assignment]:
    query = select(Assignment).where(Assignment.device_id == device_id).order_by(Assignment.slot)
    return session.scalars(query).all()


def among(session: Session, ids: Collection[str]) -> Iterator[AssignmentRow]:
    """Of the devices in `ids`, in the order of device and slot."""
    for some in portions(sorted(ids)):
        yield from map(AssignmentRow._make, _AMONG.rows(session, ids=some))


def save(
    session: Session, rows: Collection[dict[str, Any]], known: Collection[tuple[str, str]]
) -> None:
    """Rows of the columns of `assignments`; `known` are the (device, slot) pairs that there are."""
    keys = set(known)
    new = [row for row in rows if (row["device_id"], row["slot"]) not in keys]
    _ADD.run(session, new)
    moved = [
        {"of_device": row["device_id"], "of_slot": row["slot"]} | row
        for row in rows
        if (row["device_id"], row["slot"]) in keys
    ]
    _MOVE.run(session, moved)
