"""The fleet as decisions see it, kept between looks and brought up to date by what changed.

Invariants: after `refresh` it equals what that session's snapshot holds; it starts empty, so a
process that starts again reads everything once; devices that are alike share their documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydantic_core import from_json
from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout_types import DeviceView
from edgeloop_controller.store import assignments, challengers, devices
from edgeloop_protocol.messages import Inventory, SlotReported

DOCUMENTS_KEPT_MAX: Final = 10_000
"""Of each kind; what no other device shares is read again when it changes anyway."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    id: str
    labels: Mapping[str, str]
    """The effective ones."""
    online: bool
    quarantine: str
    """Why it is in quarantine; empty: it is not."""
    inventory: Inventory
    has_seen_desired: bool
    """Whether what it reports was said knowing its last desired state."""
    slots: Mapping[str, SlotReported] = field(default_factory=dict)
    assigned: Mapping[str, str | None] = field(default_factory=dict)
    """Slot → manifest digest."""
    challengers: Mapping[str, int] = field(default_factory=dict)
    """Slot → the challenger that it has there."""

    def view(self, slot: str, busy_with: int | None) -> DeviceView:
        """As a rollout of the slot sees it; `busy_with`: the other one that holds it there."""
        return DeviceView(
            id=self.id,
            labels=self.labels,
            online=self.online,
            inventory=self.inventory,
            slots=self.slots,
            # What it was assigned last is in the message that carries the desired revision.
            has_seen_offer=self.has_seen_desired,
            assigned_digest=self.assigned.get(slot),
            busy_with=busy_with,
            quarantine=self.quarantine,
            challenger_id=self.challengers.get(slot),
        )


class Fleet:
    """Used by one thread; `devices` is keyed by id."""

    def __init__(self) -> None:
        self.devices: dict[str, KnownDevice] = {}
        self._through = 0

    def refresh(self, session: Session) -> set[str]:
        """Read what changed since the last time; the ids of those devices."""
        last = devices.last_change(session)
        if last == self._through:
            return set()
        slots: dict[str, dict[str, SlotReported]] = {}
        for device_id, slot, document in devices.slots_changed(session, self._through):
            slots.setdefault(device_id, {})[slot] = _slot(document)
        assigned: dict[str, dict[str, str | None]] = {}
        for device_id, slot, digest in assignments.changed(session, self._through):
            assigned.setdefault(device_id, {})[slot] = digest
        rows = list(devices.changed(session, self._through))
        changed = {row.id for row in rows}
        challenging: dict[str, dict[str, int]] = {}
        for device_id, slot, challenger in challengers.assigned_among(session, changed):
            challenging.setdefault(device_id, {})[slot] = challenger.id
        for row in rows:
            self.devices[row.id] = KnownDevice(
                id=row.id,
                labels=labels_of(row.agent_labels, row.labels),
                online=row.online,
                quarantine=row.quarantine,
                inventory=_inventory(row.inventory),
                has_seen_desired=row.revision_seen >= row.desired_revision,
                slots=slots.get(row.id, {}),
                assigned=assigned.get(row.id, {}),
                challengers=challenging.get(row.id, {}),
            )
        self._through = last
        return changed


@lru_cache(DOCUMENTS_KEPT_MAX)
def labels_of(of_agent: str, set_here: str) -> Mapping[str, str]:
    """The effective labels, from the two columns as text."""
    return devices.merged_labels(from_json(of_agent), from_json(set_here))


@lru_cache(DOCUMENTS_KEPT_MAX)
def _inventory(document: str) -> Inventory:
    return Inventory.model_validate_json(document)


@lru_cache(DOCUMENTS_KEPT_MAX)
def _slot(document: str) -> SlotReported:
    return SlotReported.model_validate_json(document)
