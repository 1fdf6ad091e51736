"""What devices say of themselves: hello, reported state, presence. Works on rows, writes nothing.

Invariants: within an epoch only a higher sequence changes anything; another epoch begins with its
hello, since a report may be of an older boot and late: the device is asked for a hello then.
"""

from collections.abc import Sequence
from typing import Any, Final

from edgeloop_controller.services import desired
from edgeloop_controller.store.device_rows import DeviceRow, SlotRow
from edgeloop_controller.store.telemetry import Rows
from edgeloop_protocol.messages import Hello, Presence, Reported, Said, SlotReported

COLUMN_INTEGER_MAX: Final = 2**63 - 1
CONNECTION_ENDED: Final = "its connection ended"


class Devices:
    """The devices of one batch, by id; `wanted` holds what those that say hello shall run."""

    def __init__(
        self, rows: dict[str, DeviceRow], wanted: dict[str, list[dict[str, Any]]], new: Rows
    ) -> None:
        self.rows = rows
        self._wanted = wanted
        self._new = new

    def take_hello(self, hello: Hello, now: float) -> bool:
        """Create or update the device; True if it is to be told its desired state."""
        device = self.rows.get(hello.device_id)
        if device is None:
            device = self._join(hello, now)
        elif hello.epoch == device.epoch and hello.sequence < device.state_sequence:
            return False
        _check_storable(hello)
        if not device.online:
            self._new.add_event(now, "device.connected", device.id, {"epoch": hello.epoch})
        device.online = True
        device.last_seen_at = now
        device.epoch = hello.epoch
        device.state_sequence = hello.sequence
        device.revision_seen = hello.revision
        _replace_slots(device, hello.slots, now)
        answers = self._answer(device, hello.revision)
        device.documents = {
            "desired": device.desired,
            "agent_labels": dict(hello.labels),
            "inventory": hello.inventory.model_dump(mode="json"),
        }
        return answers

    def take_reported(self, device_id: str, reported: Reported, now: float) -> bool:
        """False: ignored, as older than what is known or from a device that never said hello."""
        device = self.rows.get(device_id)
        if device is None:
            return False
        if reported.epoch != device.epoch or reported.sequence <= device.state_sequence:
            return False
        _check_storable(reported)
        device.state_sequence = reported.sequence
        device.revision_seen = reported.revision
        self._seen(device, now)
        _replace_slots(device, reported.slots, now)
        return True

    def is_of_another_boot(self, device_id: str, reported: Reported) -> bool:
        device = self.rows.get(device_id)
        return device is None or device.epoch != reported.epoch

    def has_unheard(self, device_id: str, said: Said | None) -> bool:
        """Whether the device said a hello or a reported that never came here (EL-STATE-6)."""
        if said is None:
            return False
        device = self.rows.get(device_id)
        return device is None or device.epoch != said.epoch or device.state_sequence < said.sequence

    def take_presence(self, device_id: str, presence: Presence, now: float) -> bool:
        """False: ignored. A last will of an older boot says nothing about the present one."""
        device = self.rows.get(device_id)
        if device is None or presence.epoch != device.epoch:
            return False
        if presence.online:
            self._seen(device, now)
        elif device.online:
            device.online = False
            self._new.add_event(now, "device.disconnected", device.id, {"why": CONNECTION_ENDED})
        return True

    def seen(self, device_id: str, now: float) -> None:
        """Something came from the device, if it is one: it is online."""
        device = self.rows.get(device_id)
        if device is not None:
            self._seen(device, now)

    def count_bytes(self, device_id: str, size_bytes: int) -> None:
        device = self.rows.get(device_id)
        if device is not None:
            device.bytes_up += size_bytes

    def _seen(self, device: DeviceRow, now: float) -> None:
        device.last_seen_at = now
        if not device.online:
            device.online = True
            self._new.add_event(now, "device.connected", device.id, {"epoch": device.epoch})

    def _join(self, hello: Hello, now: float) -> DeviceRow:
        device = DeviceRow(
            id=hello.device_id,
            first_seen_at=now,
            last_seen_at=now,
            online=True,
            epoch=hello.epoch,
            state_sequence=hello.sequence,
            revision_seen=hello.revision,
            desired_revision=0,
        )
        self.rows[device.id] = device
        self._new.add_event(now, "device.joined", device.id, {"labels": dict(hello.labels)})
        return device

    def _answer(self, device: DeviceRow, revision: int) -> bool:
        """Whether the device is to be told its desired state.

        A device that has a higher revision than was ever made here has seen a future of this
        controller (a database restored from a backup); the revision goes on from the device's.
        """
        wanted = self._wanted.get(device.id, [])
        if wanted != device.desired:
            device.desired = wanted
            device.desired_revision = desired.next_revision(device)
        if revision > device.desired_revision:
            device.desired_revision = revision + 1
        return revision != device.desired_revision


def _replace_slots(device: DeviceRow, slots: Sequence[SlotReported], now: float) -> None:
    device.slots = {s.slot: SlotRow(s.model_dump(mode="json"), now) for s in slots}


def _check_storable(message: Hello | Reported) -> None:
    """Raises OverflowError: a later message of the batch must not hide that this one is refused."""
    if max(message.sequence, message.revision) > COLUMN_INTEGER_MAX:
        raise OverflowError("sequence or revision is too large to be stored")
