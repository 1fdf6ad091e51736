"""What devices say of themselves: hello, reported state, presence.

Invariants: within an epoch only a higher sequence changes anything; a report of another epoch
counts only from a device that is not behind what it already reported (revisions only grow).
"""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from edgeloop_controller.services import desired
from edgeloop_controller.store import events
from edgeloop_controller.store.tables import Device, DeviceSlot
from edgeloop_protocol.messages import Hello, Presence, Reported, Said, SlotReported


def take_hello(session: Session, hello: Hello, now: float) -> bool:
    """Create or update the device; True if it is to be told its desired state."""
    device = session.get(Device, hello.device_id)
    if device is None:
        device = _join(session, hello, now)
    elif hello.epoch == device.epoch and hello.sequence < device.state_sequence:
        return False
    if not device.online:
        events.add(session, now, "device.connected", device.id, {"epoch": hello.epoch})
    device.online = True
    device.last_seen_at = now
    device.epoch = hello.epoch
    device.state_sequence = hello.sequence
    device.revision_seen = hello.revision
    device.agent_labels = dict(hello.labels)
    device.inventory = hello.inventory.model_dump(mode="json")
    _replace_slots(session, device.id, hello.slots, now)
    session.flush()
    return desired.answer_hello(session, device, hello.revision)


def take_reported(session: Session, device_id: str, reported: Reported, now: float) -> bool:
    """False: ignored, as older than what is known or from a device that never said hello."""
    device = session.get(Device, device_id)
    if device is None:
        return False
    if reported.epoch == device.epoch:
        newer = reported.sequence > device.state_sequence
    else:
        newer = reported.revision >= device.revision_seen
    if not newer:
        return False
    device.epoch = reported.epoch
    device.state_sequence = reported.sequence
    device.revision_seen = reported.revision
    seen(session, device, now)
    _replace_slots(session, device_id, reported.slots, now)
    return True


def has_unheard(session: Session, device_id: str, said: Said | None) -> bool:
    """Whether the device said a hello or a reported that never came here (EL-STATE-6)."""
    if said is None:
        return False
    device = session.get(Device, device_id)
    return device is None or device.epoch != said.epoch or device.state_sequence < said.sequence


def take_presence(session: Session, device_id: str, presence: Presence, now: float) -> bool:
    """False: ignored. A last will of an older boot says nothing about the present one."""
    device = session.get(Device, device_id)
    if device is None or presence.epoch != device.epoch:
        return False
    if presence.online:
        seen(session, device, now)
    else:
        lost(session, device, now, "its connection ended")
    return True


def seen(session: Session, device: Device, now: float) -> None:
    """Something came from the device: it is online."""
    device.last_seen_at = now
    if not device.online:
        device.online = True
        events.add(session, now, "device.connected", device.id, {"epoch": device.epoch})


def lost(session: Session, device: Device, now: float, why: str) -> None:
    if device.online:
        device.online = False
        events.add(session, now, "device.disconnected", device.id, {"why": why})


def _join(session: Session, hello: Hello, now: float) -> Device:
    device = Device(
        id=hello.device_id,
        first_seen_at=now,
        last_seen_at=now,
        online=True,
        epoch=hello.epoch,
        state_sequence=hello.sequence,
        revision_seen=hello.revision,
        desired_revision=0,
        desired=[],
        agent_labels={},
        labels={},
        inventory={},
        bytes_up=0,
    )
    session.add(device)
    events.add(session, now, "device.joined", device.id, {"labels": dict(hello.labels)})
    return device


def _replace_slots(
    session: Session, device_id: str, slots: tuple[SlotReported, ...], now: float
) -> None:
    session.flush()
    named = [slot.slot for slot in slots]
    session.execute(
        delete(DeviceSlot).where(DeviceSlot.device_id == device_id, DeviceSlot.slot.not_in(named))
    )
    for slot in slots:
        row = session.get(DeviceSlot, (device_id, slot.slot))
        if row is None:
            row = DeviceSlot(device_id=device_id, slot=slot.slot)
            session.add(row)
        row.state = slot.state.value
        row.champion_digest = slot.champion.manifest_digest if slot.champion else None
        row.reported = slot.model_dump(mode="json")
        row.updated_at = now
