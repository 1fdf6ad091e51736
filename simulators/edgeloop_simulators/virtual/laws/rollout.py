"""What must hold of rollouts beyond their bounds: EL-INV-12, 13 and 16, and of EL-INV-5 what a
halt leaves.

Invariants: reads what is committed; counts the evidence itself, not by the controller's own gates.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeloop_simulators.virtual.controller.host import ControllerHost
from edgeloop_simulators.virtual.controller.record import RolloutRow
from edgeloop_simulators.virtual.laws.breaches import Breaches

COMPARED_MIN: Final = 60
DISAGREED_SHARE: Final = 0.8
"""Evidence so plain that any gate with a bound of a half must have halted by then."""
ANSWERED: Final = ("offered", "committed", "failed")
SETTLED: Final = ("committed", "failed")

_SHADOWS: Final = """
SELECT id, json_extract(terms, '$.shadow.devices'),
       json_extract(shadow, '$.began_at') IS NOT NULL,
       json_extract(shadow, '$.ended_at') IS NOT NULL OR status IN ('halted', 'aborted'),
       EXISTS (SELECT 1 FROM rollout_members m WHERE m.rollout_id = rollouts.id
               AND m.offered_at IS NOT NULL),
       (SELECT COUNT(*) FROM challenger_assignments a JOIN challengers c ON c.id = a.challenger_id
        WHERE c.rollout_id = rollouts.id)
FROM rollouts WHERE json_extract(terms, '$.shadow') IS NOT NULL
"""
"""(rollout, devices asked for, has it begun, is it over, was it offered, how many have it now)."""


@dataclass(frozen=True, slots=True)
class _Member:
    phase: str
    before_digest: str | None


class RolloutLaws:
    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches
        self._members: dict[int, Mapping[str, _Member]] = {}
        self._status: dict[int, str] = {}
        self._desired: dict[str, int] = {}

    def touched(self, host: ControllerHost) -> None:
        """Something was committed."""
        rows = host.record.query("SELECT id, revision_seen, desired_revision FROM devices")
        seen = {device_id: revision for device_id, revision, _ in rows}
        for rollout in host.record.rollouts():
            members = {
                device_id: _Member(phase, before)
                for device_id, phase, before in host.record.query(
                    "SELECT device_id, phase, before_digest FROM rollout_members "
                    "WHERE rollout_id = ?",
                    (rollout.id,),
                )
            }
            self._check_answers(rollout, members, seen)
            self._check_evidence(host, rollout, members)
            if rollout.status == "halted":
                self._check_halted(host, rollout)
            self._members[rollout.id], self._status[rollout.id] = members, rollout.status
        self._desired = {device_id: revision for device_id, _, revision in rows}
        self._check_shadows(host)

    def _check_shadows(self, host: ControllerHost) -> None:
        """EL-INV-16."""
        for rollout_id, asked, began, over, offered, having in host.record.query(_SHADOWS):
            what = f"rollout {rollout_id} has its challenger on {having} devices"
            if having > asked:
                self._tell("EL-INV-16", f"{what}; it asks for {asked}")
            if over and having:
                self._tell("EL-INV-16", f"{what}, although its shadow phase is over")
            if offered and not (began and over):
                self._tell("EL-INV-16", f"rollout {rollout_id} offers before its shadow phase")

    def _check_answers(
        self, rollout: RolloutRow, members: Mapping[str, _Member], seen: Mapping[str, int]
    ) -> None:
        """EL-INV-13."""
        before = self._members.get(rollout.id, {})
        for device_id, member in members.items():
            was = before.get(device_id)
            is_settled = was is not None and was.phase == "offered" and member.phase in SETTLED
            if is_settled and seen[device_id] < self._desired.get(device_id, 0):
                self._tell(
                    "EL-INV-13",
                    f"{device_id} counts as {member.phase} in rollout {rollout.id}; it has seen "
                    f"revision {seen[device_id]} of {self._desired[device_id]}",
                )

    def _check_evidence(
        self, host: ControllerHost, rollout: RolloutRow, members: Mapping[str, _Member]
    ) -> None:
        """EL-INV-12, where it goes on: offers to others, or calls itself done."""
        before = self._members.get(rollout.id, {})
        fresh = {
            device_id
            for device_id, member in members.items()
            if member.phase == "offered"
            and (device_id not in before or before[device_id].phase != "offered")
        }
        is_done = rollout.status == "done" and self._status.get(rollout.id) == "running"
        if not is_done and not (fresh and rollout.status == "running"):
            return
        problem = self._too_many_failed(host, rollout, members, fresh) or self._too_different(
            host, rollout, members
        )
        if problem:
            self._tell("EL-INV-12", f"rollout {rollout.id} of {rollout.version} goes on: {problem}")

    def _too_many_failed(
        self,
        host: ControllerHost,
        rollout: RolloutRow,
        members: Mapping[str, _Member],
        fresh: set[str],
    ) -> str:
        ((terms,),) = host.record.query("SELECT terms FROM rollouts WHERE id = ?", (rollout.id,))
        answered = [
            member.phase
            for device_id, member in members.items()
            if member.phase in ANSWERED and device_id not in fresh
        ]
        failed = answered.count("failed")
        allowed = math.floor(round(json.loads(terms)["max_failed_fraction"] * len(answered), 6))
        return f"{failed} of {len(answered)} devices rolled it back" if failed > allowed else ""

    def _too_different(
        self, host: ControllerHost, rollout: RolloutRow, members: Mapping[str, _Member]
    ) -> str:
        compared = disagreed = 0
        for device_id, shadow, count, disagreements in host.record.query(
            "SELECT device_id, json_extract(body, '$.comparison.shadow.manifest_digest'), "
            "compared, disagreements FROM windows WHERE manifest_digest = ? AND compared > 0 "
            "AND received_at >= (SELECT started_at FROM rollouts WHERE id = ?)",
            (rollout.digest, rollout.id),
        ):
            member = members.get(device_id)
            if member is not None and shadow == member.before_digest:
                compared += count
                disagreed += disagreements
        if compared < COMPARED_MIN or disagreed < DISAGREED_SHARE * compared:
            return ""
        return f"it disagrees on {disagreed} of {compared} examples"

    def _check_halted(self, host: ControllerHost, rollout: RolloutRow) -> None:
        """EL-INV-5."""
        left = host.record.query(
            "SELECT device_id FROM assignments WHERE rollout_id = ? ORDER BY device_id",
            (rollout.id,),
        )
        if left:
            names = ", ".join(device_id for (device_id,) in left)
            self._tell(
                "EL-INV-5", f"rollout {rollout.id} is halted, and {names} shall still run it"
            )

    def _tell(self, law: str, detail: str) -> None:
        self._breaches.tell(law, "controller", detail)
