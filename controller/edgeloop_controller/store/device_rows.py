"""Devices as a batch of messages works on them: read once at its start, written once at its end.

Invariants: a row is at each moment what the database would hold if every message were written by
itself; `devices.change` moves when, and only when, something moves that decisions are taken by
(store.devices).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.store.devices import next_change
from edgeloop_controller.store.tables import Device, DeviceSlot, table_of

_COLUMNS = (
    "first_seen_at",
    "last_seen_at",
    "online",
    "epoch",
    "state_sequence",
    "revision_seen",
    "desired_revision",
    "bytes_up",
)
_DOCUMENTS = ("desired", "agent_labels", "inventory")
"""Written of devices that said hello."""


@dataclass(slots=True)
class SlotRow:
    reported: dict[str, Any]
    updated_at: float


@dataclass(slots=True)
class DeviceRow:
    id: str
    first_seen_at: float
    last_seen_at: float
    online: bool
    epoch: str
    state_sequence: int
    revision_seen: int
    desired_revision: int
    bytes_up: int = 0
    desired: list[Any] = field(default_factory=list)
    """Read only of devices that say hello in the batch."""
    documents: dict[str, Any] = field(default_factory=dict)
    """`desired`, `agent_labels` and `inventory` to be written, once a hello was taken."""
    slots: dict[str, SlotRow] = field(default_factory=dict)
    """Read only of devices that say hello or report in the batch."""
    slots_before: Mapping[str, SlotRow] = field(default_factory=dict)
    decided_by_before: tuple[bool, bool] | None = None
    """None: a device that is not in the database yet."""

    def decided_by(self) -> tuple[bool, bool]:
        """What decisions are taken by, documents and slots apart."""
        return self.online, self.revision_seen >= self.desired_revision

    def has_changed(self) -> bool:
        reported = {name: row.reported for name, row in self.slots.items()}
        before = {name: row.reported for name, row in self.slots_before.items()}
        return (
            bool(self.documents)
            or self.decided_by() != self.decided_by_before
            or reported != before
        )


def load(
    session: Session,
    ids: Collection[str],
    with_slots: Collection[str],
    with_desired: Collection[str],
) -> dict[str, DeviceRow]:
    """Those of `ids` that the database knows."""
    columns = [getattr(Device, name) for name in ("id", *_COLUMNS)]
    query = select(*columns).where(Device.id.in_(ids))
    rows = {values[0]: DeviceRow(*values) for values in session.execute(query)}
    slots = select(
        DeviceSlot.device_id, DeviceSlot.slot, DeviceSlot.reported, DeviceSlot.updated_at
    ).where(DeviceSlot.device_id.in_(with_slots))
    for device_id, slot, reported, updated_at in session.execute(slots):
        rows[device_id].slots[slot] = SlotRow(reported, updated_at)
    desired = select(Device.id, Device.desired).where(Device.id.in_(with_desired))
    for device_id, slots_desired in session.execute(desired):
        rows[device_id].desired = slots_desired
    for row in rows.values():
        row.slots_before = row.slots
        row.decided_by_before = row.decided_by()
    return rows


def save(session: Session, rows: Collection[DeviceRow]) -> None:
    changed = {row.id for row in rows if row.has_changed()}
    change = next_change(session) if changed else 0
    new = [
        {"id": row.id, "labels": {}, "change": change} | _columns(row) | row.documents
        for row in rows
        if row.decided_by_before is None
    ]
    if new:
        session.execute(insert(table_of(Device)), new)
    known = [row for row in rows if row.decided_by_before is not None]
    _update(session, [row for row in known if row.id not in changed], ())
    _update(session, [r for r in known if r.id in changed and not r.documents], (), change)
    _update(session, [row for row in known if row.documents], _DOCUMENTS, change)
    _save_slots(session, [row for row in rows if row.slots is not row.slots_before])


def _columns(row: DeviceRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}


def _update(
    session: Session, rows: list[DeviceRow], documents: tuple[str, ...], change: int | None = None
) -> None:
    if not rows:
        return
    names = [*_COLUMNS, *documents] + (["change"] if change is not None else [])
    statement = (
        update(table_of(Device))
        .where(table_of(Device).c.id == bindparam("key"))
        .values({name: bindparam(name) for name in names})
    )
    fixed = {} if change is None else {"change": change}
    values = [{"key": row.id} | fixed | _columns(row) | row.documents for row in rows]
    session.execute(statement, values)


def _save_slots(session: Session, rows: list[DeviceRow]) -> None:
    gone, new, heard, said = [], [], [], []
    for row in rows:
        gone += [{"key": row.id, "name": s} for s in row.slots_before if s not in row.slots]
        for name, slot in row.slots.items():
            before = row.slots_before.get(name)
            if before is None:
                new.append({"device_id": row.id, "slot": name} | _slot_columns(slot))
            elif before.reported == slot.reported:
                heard.append({"key": row.id, "name": name, "updated_at": slot.updated_at})
            else:
                said.append({"key": row.id, "name": name} | _slot_columns(slot))
    table = table_of(DeviceSlot)
    its = (table.c.device_id == bindparam("key")) & (table.c.slot == bindparam("name"))
    if gone:
        session.execute(delete(table).where(its), gone)
    if new:
        session.execute(insert(table), new)
    if heard:
        session.execute(update(table).where(its), heard)
    if said:
        session.execute(update(table).where(its), said)


def _slot_columns(slot: SlotRow) -> dict[str, Any]:
    champion = slot.reported["champion"]
    return {
        "state": slot.reported["state"],
        "champion_digest": champion["manifest_digest"] if champion else None,
        "reported": slot.reported,
        "updated_at": slot.updated_at,
    }
