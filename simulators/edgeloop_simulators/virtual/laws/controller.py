"""What must hold in the controller, whatever happens to it: EL-INV-4, 5, 6, 8 and 9 (and by
`laws.rollout` 12 and 13).

Invariants: reads what is committed; a message is judged before it leaves.
"""

from collections.abc import Callable, Container, Iterable
from typing import Final

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.waves import bound, parse_waves
from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.messages import Ack, Desired, decode
from edgeloop_protocol.topics import Down, parse_down_topic
from edgeloop_simulators.virtual.controller.host import ControllerHost
from edgeloop_simulators.virtual.controller.record import RolloutRow
from edgeloop_simulators.virtual.device.host import DeviceHost
from edgeloop_simulators.virtual.laws.breaches import Breaches
from edgeloop_simulators.virtual.laws.rollout import RolloutLaws

ENDED: Final = ("halted", "aborted")
EXPOSED: Final = ("offered", "committed", "failed")


class ControllerLaws:
    """`champions_of`: digests that ever were champion on a device."""

    def __init__(
        self,
        devices: Container[str],
        champions_of: Callable[[str], Iterable[str]],
        breaches: Breaches,
    ) -> None:
        self._devices = devices
        self._champions_of = champions_of
        self._breaches = breaches
        self._rollout_laws = RolloutLaws(breaches)
        self._contents: dict[tuple[str, int], str] = {}
        self._revisions: dict[str, int] = {}
        self._heard: dict[tuple[str, str], int] = {}
        """(device, epoch) → the number of what it said last."""
        self._exposed: dict[int, frozenset[str]] = {}
        self._assigned: dict[str, set[str]] = {}

    # ---- before a message leaves ----------------------------------------------------------------

    def said(self, host: ControllerHost, topic: str, payload: bytes) -> None:
        device_id, kind = parse_down_topic(topic)
        if kind is Down.ACK:
            self._check_ack(host, device_id, decode(Ack, payload))
        else:
            desired = decode(Desired, payload)
            self._check_desired(host, device_id, desired)
            if not host.reads_every_commit:
                self.offered(device_id, desired)

    def offered(self, device_id: str, desired: Desired) -> None:
        """Also by a controller whose database is out of sight here."""
        for slot in desired.slots:
            if slot.offer is not None:
                self._assigned.setdefault(device_id, set()).add(slot.offer.manifest_digest)

    def _check_ack(self, host: ControllerHost, device_id: str, ack: Ack) -> None:
        rows = host.record.query(
            "SELECT through FROM telemetry_cursors WHERE device_id = ? AND epoch = ?",
            (device_id, ack.epoch),
        )
        through = rows[0][0] if rows else 0
        if ack.through > through:
            self._tell(
                "EL-INV-6",
                f"acknowledged {device_id} {ack.epoch} up to {ack.through}; committed is {through}",
            )

    def _check_desired(self, host: ControllerHost, device_id: str, desired: Desired) -> None:
        slots = desired.model_dump_json(include={"slots"})
        known = self._contents.setdefault((device_id, desired.revision), slots)
        if known != slots:
            self._tell("EL-INV-4", f"revision {desired.revision} of {device_id} says two things")
        rows = host.record.query("SELECT desired_revision FROM devices WHERE id = ?", (device_id,))
        committed = rows[0][0] if rows else 0
        if desired.revision > committed:
            self._tell(
                "EL-INV-4", f"said revision {desired.revision} of {device_id} before its commit"
            )

    # ---- after something happened ---------------------------------------------------------------

    def touched(self, host: ControllerHost) -> None:
        if host.raised:
            self._tell("EL-INV-9", f"the controller raised {host.raised}")
        if host.inbox_size > host.inbox_max:
            self._tell("EL-INV-8", f"{host.inbox_size} messages wait in the inbox")
        if not host.has_news:
            return
        self._check_revisions(host)
        self._check_champions(host)
        for device_id, digest in host.record.query(
            "SELECT device_id, manifest_digest FROM assignments WHERE manifest_digest IS NOT NULL"
        ):
            self._assigned.setdefault(device_id, set()).add(digest)
        for rollout in host.record.rollouts():
            self._check_exposure(host, rollout)
        self._rollout_laws.touched(host)

    def device_touched(self, host: DeviceHost) -> None:
        """EL-INV-5 on the device: it tries nothing that nobody ever assigned or offered to it."""
        snapshot = host.snapshot
        if snapshot is None:
            return
        for slot in snapshot.slots:
            if slot.candidate is not None:
                digest = slot.candidate.offer.manifest_digest
                if digest not in self._assigned.get(host.spec.id, ()):
                    self._breaches.tell(
                        "EL-INV-5", host.spec.id, f"tries {slot.candidate.offer}, never assigned"
                    )

    def _check_revisions(self, host: ControllerHost) -> None:
        for device_id, revision, epoch, sequence in host.record.query(
            "SELECT id, desired_revision, epoch, state_sequence FROM devices"
        ):
            before = self._revisions.get(device_id, 0)
            if revision < before:
                self._tell("EL-INV-4", f"revision {revision} of {device_id} after {before}")
            self._revisions[device_id] = revision
            heard = self._heard.get((device_id, epoch), 0)
            if sequence < heard:
                self._tell("EL-INV-4", f"report {sequence} of {device_id} after {heard}")
            self._heard[device_id, epoch] = sequence

    def _check_champions(self, host: ControllerHost) -> None:
        """EL-INV-3: what is reported as committed was committed."""
        for device_id, digest in host.record.query(
            "SELECT device_id, champion_digest FROM device_slots WHERE champion_digest IS NOT NULL"
        ):
            if device_id in self._devices and digest not in self._champions_of(device_id):
                self._tell("EL-INV-3", f"{device_id} reported {digest[:12]}, never its champion")

    def _check_exposure(self, host: ControllerHost, rollout: RolloutRow) -> None:
        members = dict(
            host.record.query(
                "SELECT device_id, phase FROM rollout_members WHERE rollout_id = ?", (rollout.id,)
            )
        )
        exposed = frozenset(d for d, phase in members.items() if phase in EXPOSED)
        before = self._exposed.get(rollout.id, frozenset())
        self._exposed[rollout.id] = exposed
        fresh = exposed - before
        if not fresh:
            return
        if host.reads_every_commit and rollout.status in (*ENDED, "paused"):
            self._tell("EL-INV-5", f"{sorted(fresh)} were offered by a {rollout.status} rollout")
        fit = len(self._matching(host, rollout)) - sum(p == "ineligible" for p in members.values())
        reached = parse_waves(",".join(rollout.waves))[: rollout.wave + 1]
        allowed = max(bound(wave, fit) for wave in reached)
        if len(exposed) > max(allowed, len(before)):
            self._tell(
                "EL-INV-5",
                f"{len(exposed)} devices hold {rollout.version} in wave {rollout.wave + 1} of "
                f"rollout {rollout.id}; {allowed} may",
            )

    def _matching(self, host: ControllerHost, rollout: RolloutRow) -> list[str]:
        selector = selectors.parse(rollout.selector)
        labelled = host.record.labels()
        return [id_ for id_, labels in labelled.items() if selector.matches(Labelled(id_, labels))]

    def _tell(self, law: str, detail: str) -> None:
        self._breaches.tell(law, "controller", detail)
