"""The reconciler: for each rollout, look, decide (`core.rollout.step`), write, commit, then say.

Invariants: one transaction holds a decision and all that follows from it, so a kill at any moment
loses nothing but words, which are said again; a rollout whose step fails does not stop the others.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.rollout import (
    DeviceView,
    Evidence,
    Note,
    OfferTo,
    RolloutSpec,
    RolloutStatus,
    Step,
    WithdrawFrom,
    step,
)
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.services import desired
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.evidence import gather
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store import devices, events, rollouts, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Assignment, Device, DeviceSlot, Rollout
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Inventory, SlotReported

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fleet:
    """The devices as one tick sees them."""

    devices: Sequence[Device]
    slots: Mapping[str, Mapping[str, DeviceSlot]]


class Reconciler:
    """`tick` is called by the scheduler, never twice at once."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        publisher: DesiredPublisher,
        unheard: Unheard,
        clock: Clock,
        offline_after_s: float | None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._publisher = publisher
        self._unheard = unheard
        self._clock = clock
        self._offline_after_s = offline_after_s
        self._failures = FailureLog(logger)

    def tick(self) -> None:
        self._notice_silence()
        for rollout_id, excluded in self._due():
            try:
                touched = self._turn(rollout_id, excluded)
            except Exception:
                self._failures.failed(f"rollout {rollout_id}")
                continue
            self._failures.worked(f"rollout {rollout_id}")
            self._publisher.publish(touched)
        self._publisher.say_again()
        self._unheard.ask_again()

    def _due(self) -> list[tuple[int, frozenset[str]]]:
        """Rollouts to step, each with the devices that a newer finished rollout speaks for."""
        with self._database.reading() as session:
            fleet = devices.every(session)
            active = rollouts.with_status(session, rollouts.ACTIVE)
            due = [(rollout.id, frozenset[str]()) for rollout in active]
            claimed: dict[str, set[str]] = {}
            for rollout in rollouts.with_status(session, [RolloutStatus.DONE.value]):
                taken = claimed.setdefault(rollout.slot, set())
                if len(taken) == len(fleet):
                    continue
                due.append((rollout.id, frozenset(taken)))
                taken.update(_matching_ids(rollout, fleet))
            return due

    def _turn(self, rollout_id: int, excluded: frozenset[str]) -> set[str]:
        now = self._clock.wall()
        with self._database.writing() as session:
            rollout = rollouts.require(session, rollout_id)
            spec = self._spec(rollout)
            state = rollouts.state_of(session, rollout)
            fleet = _Fleet(devices.every(session), devices.slots_by_device(session))
            views = _views(session, rollout, fleet, set(state.members))
            views = [view for view in views if view.id not in excluded]
            active = rollout.status in rollouts.ACTIVE
            seen = gather(session, rollout, state, self._registry) if active else Evidence()
            return apply_step(session, rollout, step(spec, state, views, seen, now), now)

    def _spec(self, rollout: Rollout) -> RolloutSpec:
        manifest = self._registry.manifest(rollout.manifest_digest)
        return RolloutSpec(
            id=rollout.id,
            target=manifest.ref(),
            manifest=manifest,
            slot=rollout.slot,
            selector=rollout.selector,
            waves=parse_waves(",".join(rollout.waves)),
            terms=rollouts.terms_of(rollout),
        )

    def _notice_silence(self) -> None:
        if self._offline_after_s is None:
            return
        now = self._clock.wall()
        with self._database.writing() as session:
            silent = devices.silent(session, now - self._offline_after_s)
            if silent:
                devices.set_offline(session, [device_id for device_id, _ in silent])
            for device_id, seen_at in silent:
                data = {"why": f"silent for {now - seen_at:.0f} s"}
                events.add(session, now, "device.disconnected", device_id, data)


def apply_step(session: Session, rollout: Rollout, result: Step, now: float) -> set[str]:
    """Write a step's state and effects; returns the devices whose desired state changed."""
    rollouts.save_state(session, rollout, result.state, now)
    session.flush()
    terms = rollouts.terms_of(rollout)
    target = rollout.manifest_digest
    touched: set[str] = set()
    for effect in result.effects:
        match effect:
            case OfferTo(device_id=device_id, wave=wave):
                devices.assign(
                    session,
                    device_id,
                    rollout.slot,
                    manifest_digest=target,
                    rollout_id=rollout.id,
                    probation=terms.probation.model_dump(mode="json"),
                    reason=f"rollout {rollout.id}, wave {wave + 1}",
                )
                touched.add(device_id)
            case WithdrawFrom():
                if _withdraw(session, rollout, effect):
                    touched.add(effect.device_id)
            case Note(kind=kind, detail=detail):
                data = {"rollout": rollout.id, "detail": detail, "slot": rollout.slot}
                events.add(session, now, kind, _subject(session, rollout), data)
    session.flush()
    return desired.refresh(session, touched)


def _withdraw(session: Session, rollout: Rollout, effect: WithdrawFrom) -> bool:
    """False: the device was given something else since, which stands."""
    row = session.get(Assignment, (effect.device_id, rollout.slot))
    if row is None or row.rollout_id != rollout.id:
        return False
    probation = rollouts.terms_of(rollout).probation.model_copy(update={"compare": False})
    devices.assign(
        session,
        effect.device_id,
        rollout.slot,
        manifest_digest=effect.before_digest,
        rollout_id=None,
        probation=probation.model_dump(mode="json"),
        reason=f"withdrawn: {effect.reason}"[:500],
    )
    return True


def _subject(session: Session, rollout: Rollout) -> str:
    version = versions.by_digest(session, rollout.manifest_digest)
    return f"{version.name}@{version.version}" if version else rollout.manifest_digest


def _matching_ids(rollout: Rollout, fleet: Sequence[Device]) -> set[str]:
    selector = selectors.parse(rollout.selector)
    return {d.id for d in fleet if selector.matches(d.id, devices.effective_labels(d))}


def _views(
    session: Session, rollout: Rollout, fleet: _Fleet, members: set[str]
) -> list[DeviceView]:
    """All devices that match now and all that are members."""
    wanted = _matching_ids(rollout, fleet.devices) | members
    assigned = devices.assignments_on(session, rollout.slot)
    held = rollouts.held_devices(session, rollout.slot)
    return [
        _view(device, fleet, assigned.get(device.id), held.get(device.id, rollout.id), rollout.id)
        for device in fleet.devices
        if device.id in wanted
    ]


def _view(
    device: Device, fleet: _Fleet, assigned: Assignment | None, holder: int, rollout_id: int
) -> DeviceView:
    slots = fleet.slots.get(device.id, {})
    return DeviceView(
        id=device.id,
        labels=devices.effective_labels(device),
        online=device.online,
        inventory=Inventory.model_validate(device.inventory),
        slots={name: SlotReported.model_validate(row.reported) for name, row in slots.items()},
        # What it was assigned last is in the message that carries the desired revision.
        has_seen_offer=device.revision_seen >= device.desired_revision,
        assigned_digest=assigned.manifest_digest if assigned else None,
        busy_with=None if holder == rollout_id else holder,
    )
