"""`rollout plan`: what a rollout would do to this fleet now, and what it costs in bytes.

Invariants: nothing is written; the devices are read as the reconciler reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.rollout import RolloutSpec
from edgeloop_controller.core.rollout_plan import Plan, plan
from edgeloop_controller.core.rollout_queue import Claim
from edgeloop_controller.core.schedule import TIMEZONE_LABEL
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.services.fleet import Fleet, KnownDevice
from edgeloop_controller.services.patches import Patches
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.rollout_memory import HOLDING
from edgeloop_controller.services.rollouts import (
    IfBusy,
    RolloutRequest,
    check_request,
    overlapping,
)
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.services.timezones import is_known, utc_offset
from edgeloop_controller.store import rollouts, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Version
from edgeloop_protocol.clock import Clock

INSTALL_S_DEFAULT = 60.0
"""From an offer to a commit, where nobody says otherwise."""


@dataclass(frozen=True)
class Bytes:
    """What all devices would fetch; `full`: without patches. `patched`: devices that get one."""

    total: int
    full: int
    patched: int


@dataclass(frozen=True)
class Planned:
    plan: Plan
    by_wave: tuple[int, ...]
    """Bytes of each wave."""
    bytes: Bytes
    offline: int
    """Of the devices that would enter."""
    overlaps: tuple[int, ...]
    """Unfinished rollouts that it would be refused for, or wait for, or end."""
    unknown_zones: tuple[str, ...]
    shadow_bytes: int
    """That the devices of the shadow phase would fetch before it; a wave fetches them again."""
    unsigned: str
    """Why it cannot start before somebody signs the version; empty: it can."""


class Planning:
    def __init__(
        self,
        database: Database,
        registry: Registry,
        patches: Patches,
        clock: Clock,
        gate: SigningGate,
    ) -> None:
        self._database = database
        self._registry = registry
        self._patches = patches
        self._clock = clock
        self._gate = gate

    def plan(self, request: RolloutRequest, install_s: float = INSTALL_S_DEFAULT) -> Planned:
        """Raises NotFoundError, SelectorError, WaveError or RefusedInputError."""
        check_request(request)
        selector = selectors.parse(request.selector)
        with self._database.reading() as session:
            version = versions.require(session, request.name, request.version)
            fleet = Fleet()
            fleet.refresh(session)
            matching = {d.id: d for d in fleet.devices.values() if selector.matches(d)}
            number = rollouts.next_id(session)
            claim = Claim(number, request.slot, request.selector, matching.keys())
            busy = overlapping(session, claim)
            in_the_way = busy if request.if_busy is IfBusy.REFUSE else []
            holders = _holders(session, [other.rollout_id for other in in_the_way])
            views = {d.id: d.view(request.slot, holders.get(d.id)) for d in matching.values()}
            spec = self._spec(number, version, request)
            found = plan(spec, views, self._clock.wall(), install_s, utc_offset)
            shadowing = found.shadow.devices if found.shadow is not None else ()
            ids = [device for wave in found.waves for device in wave.devices]
            sizes = self._sizes(session, version, request.slot, [*ids, *shadowing], matching)
        entered = [device for wave in found.waves for device in wave.devices]
        zones = {device.labels.get(TIMEZONE_LABEL, "") for device in matching.values()}
        return Planned(
            plan=found,
            by_wave=tuple(sum(sizes[d][0] for d in wave.devices) for wave in found.waves),
            bytes=Bytes(
                total=sum(sizes[device][0] for device in entered),
                full=sum(sizes[device][1] for device in entered),
                patched=sum(sizes[device][0] < sizes[device][1] for device in entered),
            ),
            offline=sum(not matching[device].online for device in entered),
            overlaps=tuple(other.rollout_id for other in busy),
            unknown_zones=tuple(sorted(zone for zone in zones if not is_known(zone))),
            shadow_bytes=sum(sizes[device][0] for device in shadowing),
            unsigned=str(self._gate.unsigned(version, request.slot) or ""),
        )

    def _spec(self, number: int, version: Version, request: RolloutRequest) -> RolloutSpec:
        manifest = self._registry.manifest(version.manifest_digest)
        return RolloutSpec(
            id=number,
            target=manifest.ref(),
            manifest=manifest,
            slot=request.slot,
            selector=request.selector,
            waves=parse_waves(",".join(request.waves)),
            terms=request.terms,
        )

    def _sizes(
        self,
        session: Session,
        version: Version,
        slot: str,
        ids: Sequence[str],
        devices: Mapping[str, KnownDevice],
    ) -> dict[str, tuple[int, int]]:
        """Device → bytes that it would fetch, and that it would fetch without a patch."""
        hints = self._patches.hints(session, ids, [version.artifact_digest])
        sizes = {}
        for device_id in ids:
            if _has(devices[device_id], slot, version.manifest_digest):
                sizes[device_id] = (0, 0)
                continue
            patch = hints.patch(device_id, slot, version.artifact_digest)
            artifact = patch.size_bytes if patch is not None else version.artifact_size_bytes
            manifest = version.manifest_size_bytes
            sizes[device_id] = (manifest + artifact, manifest + version.artifact_size_bytes)
        return sizes


def _has(device: KnownDevice, slot: str, manifest_digest: str) -> bool:
    """Both versions that a slot keeps cost nothing."""
    reported = device.slots.get(slot)
    kept = (reported.champion, reported.previous) if reported is not None else ()
    return any(one is not None and one.manifest_digest == manifest_digest for one in kept)


def _holders(session: Session, rollout_ids: list[int]) -> dict[str, int]:
    return {
        device_id: rollout_id
        for rollout_id in rollout_ids
        for device_id, member in rollouts.members_of(session, rollout_id).items()
        if member.phase in HOLDING
    }
