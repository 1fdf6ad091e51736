"""`why`: gathers what is known of one device, in one snapshot, and has it explained.

Invariants: reads only; at most ENDED_LOOKED_AT_MAX ended rollouts are matched against the device.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.drift import Scope
from edgeloop_controller.core.explained_facts import (
    Assigned,
    AssignedChallenger,
    Broker,
    ConcernedRollout,
    DeviceFacts,
    Hold,
    OpenAlarm,
    SlotFacts,
)
from edgeloop_controller.core.explanation import Account, explain
from edgeloop_controller.core.rollout import Member, MemberPhase, RolloutStatus, RolloutTerms
from edgeloop_controller.core.shadow_types import ShadowOutcome
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.store import (
    assignments,
    challengers,
    devices,
    drift,
    events,
    rollouts,
    shadow_phases,
    telemetry,
)
from edgeloop_controller.store import versions as published
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import (
    Assignment,
    Device,
    DeviceSlot,
    DriftAlarm,
    Rollout,
    RolloutMember,
)
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.messages import Inventory, SlotReported

ENDED_LOOKED_AT_MAX: Final = 50
"""Newest first: of each slot the first that concerned the device is explained."""


class Connection(Protocol):
    """The controller's own to the broker; `reason`: why there is none."""

    reason: str

    @property
    def is_connected(self) -> bool:
        """Now."""


@dataclass(frozen=True)
class Told:
    facts: DeviceFacts
    account: Account
    now: float


class Explaining:
    def __init__(
        self,
        database: Database,
        connection: Connection,
        address: str,
        clock: Clock,
        gate: SigningGate,
    ) -> None:
        self._gate = gate
        self._database = database
        self._connection = connection
        self._address = address
        self._clock = clock

    def of(self, device_id: str) -> Told:
        """Of a device that was never seen, too: that is an explanation."""
        now = self._clock.wall()
        with self._database.reading() as session:
            facts = gather(session, device_id, self._broker(), self._gate)
        return Told(facts, explain(facts, now), now)

    def _broker(self) -> Broker:
        connected = self._connection.is_connected
        return Broker(connected, self._address, "" if connected else self._connection.reason)


def gather(session: Session, device_id: str, broker: Broker, gate: SigningGate) -> DeviceFacts:
    device = session.get(Device, device_id)
    if device is None:
        spoke = bool(telemetry.cursors(session, device_id))
        return DeviceFacts(device_id, broker, telemetry_without_hello=spoke, known=False)
    return DeviceFacts(
        id=device.id,
        broker=broker,
        online=device.online,
        last_seen_at=device.last_seen_at,
        offline_why="" if device.online else _offline_why(session, device_id),
        labels=devices.effective_labels(device),
        revision_desired=device.desired_revision,
        revision_seen=device.revision_seen,
        slots=_slots(session, device, gate),
        holds=_holds(device),
    )


def _holds(device: Device) -> tuple[Hold, ...]:
    if not device.quarantine:
        return ()
    remedy = f"mend what it was put there for, then `edgeloop device release {device.id}`"
    return (Hold("in quarantine", None, device.quarantine, remedy),)


def _offline_why(session: Session, device_id: str) -> str:
    event = events.newest_of(session, "device.disconnected", device_id)
    return str(event.data.get("why", "")) if event else ""


def _slots(session: Session, device: Device, gate: SigningGate) -> tuple[SlotFacts, ...]:
    rows = {row.slot: row for row in devices.slots_of(session, device.id)}
    reported = {name: SlotReported.model_validate(row.reported) for name, row in rows.items()}
    assigned = {row.slot: row for row in assignments.of_device(session, device.id)}
    concerned = _concerned(session, device, reported, gate)
    challenging = {
        slot: AssignedChallenger(
            row.id, _name(session, row.manifest_digest), row.manifest_digest, row.rollout_id
        )
        for _, slot, row in challengers.assigned_among(session, [device.id])
    }
    alarms = drift.open_alarms(session)
    return tuple(
        SlotFacts(
            slot=name,
            reported=reported.get(name),
            heard_at=rows[name].updated_at if name in rows else None,
            assigned=_assigned(session, assigned.get(name)),
            rollouts=tuple(concerned[name]),
            challenger=challenging.get(name),
            alarms=_alarms(device, rows.get(name), alarms),
        )
        for name in sorted({*reported, *assigned, *concerned, *challenging})
    )


def _assigned(session: Session, row: Assignment | None) -> Assigned | None:
    if row is None:
        return None
    name = _name(session, row.manifest_digest) if row.manifest_digest else ""
    return Assigned(name, row.manifest_digest, row.reason)


def _concerned(
    session: Session, device: Device, reported: Mapping[str, SlotReported], gate: SigningGate
) -> dict[str, list[ConcernedRollout]]:
    """By slot, newest first: all unfinished ones, and the newest ended one."""
    asked = Labelled(
        id=device.id,
        labels=devices.effective_labels(device),
        online=device.online,
        quarantine=device.quarantine,
        inventory=Inventory.model_validate(device.inventory),
        slots=reported,
    )
    unfinished = rollouts.with_status(session, rollouts.UNFINISHED)
    rows = [*unfinished, *rollouts.ended(session, ENDED_LOOKED_AT_MAX)]
    memberships = rollouts.memberships_of(session, device.id, [row.id for row in rows])
    found: dict[str, list[ConcernedRollout]] = defaultdict(list)
    ended: set[str] = set()
    for rollout in sorted(rows, key=lambda row: -row.id):
        is_over = rollout.status not in rollouts.UNFINISHED
        if is_over and rollout.slot in ended:
            continue
        matches = selectors.parse(rollout.selector).matches(asked)
        member = memberships.get(rollout.id)
        if not matches and member is None:
            continue
        found[rollout.slot].append(_rollout(session, rollout, matches, member, gate))
        if is_over:
            ended.add(rollout.slot)
    return found


def _rollout(
    session: Session, row: Rollout, matches: bool, member: RolloutMember | None, gate: SigningGate
) -> ConcernedRollout:
    terms = rollouts.terms_of(row)
    shadow = shadow_phases.from_document(row.shadow)
    broke = shadow.outcome in (ShadowOutcome.BROKEN, ShadowOutcome.STOPPED)
    is_in_shadow = terms.shadow is not None and (shadow.outcome is None or broke)
    return ConcernedRollout(
        id=row.id,
        target=_name(session, row.manifest_digest),
        target_digest=row.manifest_digest,
        status=RolloutStatus(row.status),
        wave=row.wave,
        waves=len(row.waves),
        verdict=row.verdict,
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline_s=terms.deadline_s,
        is_in_shadow=is_in_shadow,
        shadow_is_overdue=is_in_shadow and shadow.is_overdue,
        waits_for_approval_of=_unapproved(row, terms),
        unsigned=gate.withheld(session, row.manifest_digest, row.slot),
        matches=matches,
        member=_member(member) if member else None,
    )


def _unapproved(row: Rollout, terms: RolloutTerms) -> int | None:
    """The wave that comes next, from 1, if a person has to approve it and has not."""
    coming = row.wave + 1 + (row.wave_started_at is not None)
    waits = coming in terms.schedule.approve and str(coming) not in row.approvals
    return coming if waits else None


def _member(row: RolloutMember) -> Member:
    return Member(
        device_id=row.device_id,
        wave=row.wave,
        phase=MemberPhase(row.phase),
        offered_at=row.offered_at,
        settled_at=row.settled_at,
        before_digest=row.before_digest,
        cause=row.cause,
    )


def _alarms(
    device: Device, slot: DeviceSlot | None, alarms: Sequence[DriftAlarm]
) -> tuple[OpenAlarm, ...]:
    """Those of what the slot runs, on the device, on a label of it or on the fleet."""
    if slot is None:
        return ()
    keys = {Scope.FLEET.value: {"*"}, Scope.DEVICE.value: {device.id}}
    keys[Scope.LABEL.value] = {f"{k}={v}" for k, v in devices.effective_labels(device).items()}
    return tuple(
        OpenAlarm(
            id=row.id,
            scope=row.scope,
            key=row.key,
            cause=row.cause,
            sensor=row.sensor,
            score=row.score,
            threshold=row.threshold,
            raised_at=row.raised_at,
        )
        for row in alarms
        if row.slot == slot.slot
        and row.manifest_digest == slot.champion_digest
        and row.key in keys.get(row.scope, ())
    )


def _name(session: Session, manifest_digest: str) -> str:
    version = published.by_digest(session, manifest_digest)
    return f"{version.name}@{version.version}" if version else manifest_digest[:12]
