"""Which devices have which challenger: the reconciler's part of services.challengers.

Invariants: a device that comes to match is given it, one that does not any more is rid of it; of
two that match through labels that changed, the older stays; a device that a rollout's shadow phase
has on the slot is left to that (services.shadow_assigning); only what changed is looked at, and
until it is committed it counts as not looked at.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.services import desired
from edgeloop_controller.services.fleet import KnownDevice
from edgeloop_controller.store import challengers


@dataclass(frozen=True)
class Assigned:
    """`touched`: the devices that are to be told."""

    active: tuple[int, ...]
    withheld: Set[int]
    looked_at: Set[str]
    touched: Set[str]


class ChallengerTurn:
    """Used by one thread; after a restart everything is looked at once."""

    def __init__(self) -> None:
        self._active: tuple[int, ...] | None = None
        """None: not looked at yet, so one that was stopped may be left with devices."""
        self._withheld: Set[int] = frozenset()
        self._stale: set[str] = set()

    def see(self, changed: Set[str]) -> None:
        self._stale |= changed

    def is_due(self, session: Session, withheld: Set[int] = frozenset()) -> bool:
        active = challengers.active_ids(session)
        if self._active is None and not active and not challengers.any_assigned(session):
            self._active = ()
        if not active and self._active == ():
            self._stale.clear()
        moved = active != self._active or withheld != self._withheld
        return moved or bool(active and self._stale)

    def assign(
        self,
        session: Session,
        fleet: Mapping[str, KnownDevice],
        withheld: Set[int] = frozenset(),
    ) -> Assigned:
        """Writes; `committed` follows the commit. `withheld`: given to no further device."""
        rows = challengers.active(session)
        active = tuple(row.id for row in rows)
        moved = active != self._active or withheld != self._withheld
        looked_at = set(fleet) if moved else self._stale & fleet.keys()
        has: dict[tuple[str, str], int] = {}
        left_alone: set[tuple[str, str]] = set()
        for device_id, slot, challenger in challengers.assigned_among(session, looked_at):
            if challenger.rollout_id is None:
                has[device_id, slot] = challenger.id
            else:
                left_alone.add((device_id, slot))
        wants: dict[tuple[str, str], int] = {}
        for row in rows:
            selector = selectors.parse(row.selector)
            for device_id in looked_at:
                device = fleet[device_id]
                may = row.id not in withheld or has.get((device_id, row.slot)) == row.id
                if may and row.slot in device.slots and selector.matches(device):
                    wants.setdefault((device_id, row.slot), row.id)
        changed = {
            key: wants.get(key)
            for key in (has.keys() | wants) - left_alone
            if has.get(key) != wants.get(key)
        }
        challengers.assign(session, changed)
        session.flush()
        touched = desired.refresh(session, {device_id for device_id, _ in changed})
        return Assigned(active, withheld, looked_at, touched)

    def committed(self, assigned: Assigned) -> None:
        self._active, self._withheld = assigned.active, assigned.withheld
        self._stale -= assigned.looked_at
