"""Devices as a batch of messages works on them: read once at its start, written once at its end.

Invariants: a row is at each moment what the database would hold if every message were written by
itself; `devices.change` moves when, and only when, something moves that decisions are taken by
(store.devices).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BindParameter, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.store import identities
from edgeloop_controller.store.devices import next_change
from edgeloop_controller.store.prepared import Prepared
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

_DEVICE: Final = table_of(Device)
_SLOT: Final = table_of(DeviceSlot)
_IDS: Final[BindParameter[str]] = bindparam("ids", expanding=True)
_KNOWN: Final = Prepared(
    select(_DEVICE.c.id, *(_DEVICE.c[name] for name in _COLUMNS)).where(_DEVICE.c.id.in_(_IDS))
)
_SLOTS: Final = Prepared(
    select(_SLOT.c.device_id, _SLOT.c.slot, _SLOT.c.reported, _SLOT.c.updated_at).where(
        _SLOT.c.device_id.in_(_IDS)
    )
)
_DESIRED: Final = Prepared(select(_DEVICE.c.id, _DEVICE.c.desired).where(_DEVICE.c.id.in_(_IDS)))


def _its(names: tuple[str, ...]) -> dict[str, BindParameter[Any]]:
    return {name: bindparam(name) for name in names}


def _updating(*names: str) -> Prepared:
    its = _DEVICE.c.id == bindparam("key")
    return Prepared(update(_DEVICE).where(its).values(_its((*_COLUMNS, *names))))


_JOIN: Final = Prepared(
    insert(_DEVICE).values(_its(("id", "labels", "change", *_COLUMNS, *_DOCUMENTS)))
)
_HEAR: Final = _updating()
_CHANGE: Final = _updating("change")
_DESCRIBE: Final = _updating("change", *_DOCUMENTS)
_OF_SLOT: Final = (_SLOT.c.device_id == bindparam("key")) & (_SLOT.c.slot == bindparam("name"))
_SAID: Final = ("state", "champion_digest", "reported", "updated_at")
_ADD_SLOT: Final = Prepared(insert(_SLOT).values(_its(("device_id", "slot", *_SAID))))
_SAY_SLOT: Final = Prepared(update(_SLOT).where(_OF_SLOT).values(_its(_SAID)))
_HEAR_SLOT: Final = Prepared(update(_SLOT).where(_OF_SLOT).values(_its(("updated_at",))))
_DROP_SLOT: Final = Prepared(delete(_SLOT).where(_OF_SLOT))


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
    rows = {values[0]: DeviceRow(*values) for values in _KNOWN.rows(session, ids=ids)}
    if with_slots:
        for device_id, slot, reported, updated_at in _SLOTS.rows(session, ids=with_slots):
            rows[device_id].slots[slot] = SlotRow(reported, updated_at)
    if with_desired:
        for device_id, slots_desired in _DESIRED.rows(session, ids=with_desired):
            rows[device_id].desired = slots_desired
    for row in rows.values():
        row.slots_before = row.slots
        row.decided_by_before = row.decided_by()
    return rows


def save(session: Session, rows: Collection[DeviceRow]) -> None:
    changed = {row.id for row in rows if row.has_changed()}
    change = next_change(session) if changed else 0
    joined = [row for row in rows if row.decided_by_before is None]
    given = identities.labels_of(session, [row.id for row in joined])
    new = [
        {"id": row.id, "labels": given.get(row.id, {}), "change": change}
        | _columns(row)
        | row.documents
        for row in joined
    ]
    _JOIN.run(session, new)
    known = [row for row in rows if row.decided_by_before is not None]
    heard = [row for row in known if row.id not in changed]
    moved = [row for row in known if row.id in changed and not row.documents]
    described = [row for row in known if row.documents]
    _HEAR.run(session, [{"key": row.id} | _columns(row) for row in heard])
    news = {"change": change}
    _CHANGE.run(session, [{"key": row.id} | news | _columns(row) for row in moved])
    _DESCRIBE.run(
        session, [{"key": row.id} | news | _columns(row) | row.documents for row in described]
    )
    _save_slots(session, [row for row in rows if row.slots is not row.slots_before])


def _columns(row: DeviceRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}


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
    _DROP_SLOT.run(session, gone)
    _ADD_SLOT.run(session, new)
    _HEAR_SLOT.run(session, heard)
    _SAY_SLOT.run(session, said)


def _slot_columns(slot: SlotRow) -> dict[str, Any]:
    champion = slot.reported["champion"]
    return {
        "state": slot.reported["state"],
        "champion_digest": champion["manifest_digest"] if champion else None,
        "reported": slot.reported,
        "updated_at": slot.updated_at,
    }
