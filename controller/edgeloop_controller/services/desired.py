"""From assignments to the Desired message that a device gets.

Invariants: a device's revision only grows, and grows only when what it shall run differs; the
message is written to the database before it is said; saying it again changes nothing.
"""

import threading
from collections.abc import Iterable
from typing import Any, Final, Protocol

from sqlalchemy.orm import Session

from edgeloop_controller.store import devices, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Assignment, Device, Version
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Desired, Offer, Probation, SlotDesired, encode
from edgeloop_protocol.topics import Down, down_topic

SAY_AGAIN_S: Final = 10.0


class Outbound(Protocol):
    """The part of a broker that services speak through."""

    def publish(self, topic: str, payload: bytes) -> bool:
        """False: not sent, say it again later."""


def refresh(session: Session, device: Device) -> bool:
    """Bring `device.desired` up to its assignments; True if it changed and is to be said."""
    slots = [_slot_desired(session, row) for row in devices.assignments_of(session, device.id)]
    if slots == device.desired:
        return False
    device.desired = slots
    device.desired_revision = max(device.desired_revision, device.revision_seen) + 1
    return True


def answer_hello(session: Session, device: Device, revision: int) -> bool:
    """Whether the device is to be told its desired state.

    A device that has a higher revision than was ever made here has seen a future of this
    controller (a database restored from a backup); the revision goes on from the device's.
    """
    refresh(session, device)
    if revision > device.desired_revision:
        device.desired_revision = revision + 1
    return revision != device.desired_revision


def desired_message(device: Device) -> Desired:
    slots = tuple(SlotDesired.model_validate(slot) for slot in device.desired)
    return Desired(revision=device.desired_revision, slots=slots)


def offer(version: Version) -> Offer:
    return Offer(
        name=version.name,
        version=version.version,
        manifest_digest=version.manifest_digest,
        manifest_size_bytes=version.manifest_size_bytes,
        artifact_digest=version.artifact_digest,
        artifact_size_bytes=version.artifact_size_bytes,
    )


def _slot_desired(session: Session, row: Assignment) -> dict[str, Any]:
    version = versions.by_digest(session, row.manifest_digest) if row.manifest_digest else None
    slot = SlotDesired(
        slot=row.slot,
        offer=offer(version) if version else None,
        probation=Probation.model_validate(row.probation),
        reason=row.reason,
    )
    return slot.model_dump(mode="json")


class DesiredPublisher:
    """Says desired states over the broker, and says them again to devices that lag behind."""

    def __init__(self, database: Database, outbound: Outbound, clock: Clock) -> None:
        self._database = database
        self._outbound = outbound
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def publish(self, device_ids: Iterable[str]) -> None:
        """Say the committed desired state of each device, if it has one."""
        wanted = sorted(set(device_ids))
        if not wanted:
            return
        with self._database.reading() as session:
            for device_id in wanted:
                device = session.get(Device, device_id)
                if device is not None and device.desired_revision > 0:
                    self._say(device)

    def publish_behind(self) -> None:
        """Say it again to those that have not reported it: a crash or a broker may have lost it."""
        now = self._clock.monotonic()
        with self._database.reading() as session:
            behind = devices.behind(session)
            with self._lock:
                waiting = {d.id for d in behind}
                self._said_at = {k: v for k, v in self._said_at.items() if k in waiting}
                due = [d for d in behind if now - self._said_at.get(d.id, -1e9) >= SAY_AGAIN_S]
            for device in due:
                self._say(device)

    def _say(self, device: Device) -> None:
        if self._outbound.publish(
            down_topic(device.id, Down.DESIRED), encode(desired_message(device))
        ):
            with self._lock:
                self._said_at[device.id] = self._clock.monotonic()
