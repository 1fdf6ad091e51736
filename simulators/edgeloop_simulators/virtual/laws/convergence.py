"""What must be so once faults have stopped and time has passed: EL-INV-7, and the sum of EL-INV-6.

Invariant: the telemetry that devices ever numbered is compared record by record with the database.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Protocol

from edgeloop_agent.core.device import Device
from edgeloop_protocol.lifecycle import RESTING, ChallengeState
from edgeloop_protocol.messages import SlotReported
from edgeloop_simulators.virtual.controller.record import ControllerRecord
from edgeloop_simulators.virtual.device.host import DeviceHost
from edgeloop_simulators.virtual.laws.breaches import Breaches

EPOCHS_ALL: Final = 10_000
RUNNING: Final = "running"


class Recorded(Protocol):
    """A controller, from beside it."""

    record: ControllerRecord

    @property
    def is_up(self) -> bool: ...


class Convergence:
    def __init__(
        self,
        hosts: Mapping[str, DeviceHost],
        controller: Recorded,
        breaches: Breaches,
        quiet_since_s: float,
    ) -> None:
        """`quiet_since_s`: an outbox must have been empty at some time since."""
        self._hosts = hosts
        self._controller = controller
        self._breaches = breaches
        self._quiet_since_s = quiet_since_s
        self.stored = self.lost = self.duplicated = 0
        """Telemetry records of all devices."""

    def check(self) -> None:
        if not self._controller.is_up:
            self._tell("EL-INV-7", "controller", "it is down")
            return
        for rollout in self._controller.record.rollouts():
            if rollout.status == RUNNING:
                self._tell(
                    "EL-INV-7", "controller", f"rollout {rollout.id} still {rollout.verdict}"
                )
        for host in self._hosts.values():
            if host.is_reachable:
                self._check_device(host)
            self._check_telemetry(host)

    def _check_device(self, host: DeviceHost) -> None:
        device_id, device = host.spec.id, host.device
        rows = self._controller.record.query(
            "SELECT desired_revision, online FROM devices WHERE id = ?", (device_id,)
        )
        if device is None or not device.connected or not rows:
            self._tell("EL-INV-7", device_id, "it is not up and connected")
            return
        revision = rows[0][0]
        if device.revision < revision:
            self._tell("EL-INV-7", device_id, f"has revision {device.revision} of {revision}")
        if host.outbox_held and host.emptied_at < self._quiet_since_s:
            self._tell("EL-INV-7", device_id, f"its outbox was never empty: {host.outbox_held}")
        self._check_slots(host, device)

    def _check_slots(self, host: DeviceHost, device: Device) -> None:
        device_id, record = host.spec.id, self._controller.record
        assigned: dict[str, str | None] = dict(
            record.query(
                "SELECT slot, manifest_digest FROM assignments WHERE device_id = ?", (device_id,)
            )
        )
        known: dict[str, Any] = {
            slot: json.loads(reported)
            for slot, reported in record.query(
                "SELECT slot, reported FROM device_slots WHERE device_id = ?", (device_id,)
            )
        }
        challengers: dict[str, str] = dict(
            record.query(
                "SELECT a.slot, c.manifest_digest FROM challenger_assignments a "
                "JOIN challengers c ON c.id = a.challenger_id WHERE a.device_id = ?",
                (device_id,),
            )
        )
        for slot in device.reported():
            self._check_challenger(host, slot, challengers.get(slot.slot))
            says = slot.model_dump(mode="json")
            if known.get(slot.slot) != says:
                self._tell("EL-INV-7", device_id, f"says {says}; known is {known.get(slot.slot)}")
            champion = slot.champion.manifest_digest if slot.champion else None
            refused = slot.refused.version.manifest_digest if slot.refused else None
            wanted = assigned.get(slot.slot)
            if wanted is not None and wanted not in (champion, refused):
                self._tell(
                    "EL-INV-7",
                    device_id,
                    f"runs {slot.champion}, shall run {wanted[:12]}, {slot.state}: {slot.waiting}",
                )
            if slot.state not in RESTING:
                self._tell("EL-INV-7", device_id, f"{slot.state}: {slot.waiting or 'no reason'}")
            if champion is not None and not slot.runner_alive and not host.is_bad(champion):
                self._tell("EL-INV-7", device_id, f"nothing serves {slot.champion}")

    def _check_challenger(self, host: DeviceHost, slot: SlotReported, wanted: str | None) -> None:
        """It is in shadow, or is the champion, or was refused with a cause; or nothing serves."""
        challenger, champion = slot.challenger, slot.champion
        has = challenger.version.manifest_digest if challenger else None
        if has != wanted:
            self._tell("EL-INV-7", host.spec.id, f"is challenged by {has}, shall be by {wanted}")
        if challenger is None or champion is None or not slot.runner_alive:
            return
        if host.is_bad(challenger.version.manifest_digest):
            return  # it may be between two tries
        shadows = any(
            runner.budget is not None and runner.version == challenger.version
            for runner in host.runners
        )
        if challenger.state is ChallengeState.REFUSED or champion.manifest_digest == has:
            return
        if challenger.state is not ChallengeState.IN_SHADOW or not shadows:
            said = f"{challenger.version} is {challenger.state}"
            self._tell(
                "EL-INV-7", host.spec.id, f"{said}; it has {'a' if shadows else 'no'} runner"
            )

    def _check_telemetry(self, host: DeviceHost) -> None:
        """EL-INV-6: acknowledged is stored once; the rest is held, or counted as dropped."""
        device_id, record = host.spec.id, self._controller.record
        if host.outbox is None:
            return
        stored: dict[str, Counter[int]] = {}
        for table in ("windows", "shadow_windows", "samples", "events"):
            for epoch, sequence in record.query(
                f"SELECT epoch, sequence FROM {table} WHERE device_id = ? AND epoch IS NOT NULL",  # noqa: S608
                (device_id,),
            ):
                stored.setdefault(epoch, Counter())[sequence] += 1
        counts = {count.epoch: count for count in host.outbox.counts(EPOCHS_ALL)}
        for epoch, appended in host.appended.items():
            have = stored.pop(epoch, Counter())
            count = counts.get(epoch)
            acked = count.acked if count is not None else appended
            # What is within another window is not stored under its own number.
            dropped = count.dropped + count.merged if count is not None else 0
            lost = sum(not have[n] for n in range(1, acked + 1))
            twice = sum(times - 1 for times in have.values())
            foreign = sum(not 1 <= n <= appended for n in have)
            missing = sum(not have[n] for n in range(1, appended + 1))
            held = count.held if count is not None else 0
            self.stored += len(have)
            self.lost += max(0, lost - dropped, missing - dropped - held)
            self.duplicated += twice + foreign
            if lost > dropped or missing > dropped + held:
                self._tell(
                    "EL-INV-6", device_id, f"{lost} of {acked} acknowledged of {epoch} are lost"
                )
            if twice or foreign:
                self._tell(
                    "EL-INV-6", device_id, f"{twice} of {epoch} doubled, {foreign} from nowhere"
                )

    def _tell(self, law: str, part: str, detail: str) -> None:
        self._breaches.tell(law, part, detail)
