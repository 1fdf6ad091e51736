"""Drift: who differs from the version's baseline or from its own past, and why.

The fleet (and each label) is compared with the training data; one device is compared with *its own*
first examples under the version, because a person or a place that was never seen in training looks
as foreign as a changed world. Decided in this order:

1. sensor_fault: a device's drift is clearly of one sensor, above `thresholds.sensor`, while the
   rest of the fleet is quiet. It is left out of every merge until its alarm is cleared.
2. world_changed: the merged fleet lies above `thresholds.fleet` and at least half of its devices
   above `thresholds.device`; else the same within a label. What it explains is not found again
   below it.
3. device_differs: a device lies above `thresholds.device`, and it is not one of most of the fleet:
   while a change spreads, devices cross their thresholds before the merged fleet does.

Invariants: pure over window summaries; a device or scope with too few examples is not judged at
all; every finding carries the figures that it rests on.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from edgeloop_controller.core.drift_judgements import (
    DEFAULT_THRESHOLDS,
    Judged,
    Judgements,
    examples_needed,
    thresholds_of,
)
from edgeloop_controller.core.drift_scores import (
    DriftWindow,
    FeatureDrift,
    Score,
    merge,
    score,
)
from edgeloop_controller.core.drift_types import Cause, DeviceHistory, Finding, Scope
from edgeloop_protocol.manifest import Manifest

__all__ = [
    "Cause",
    "DeviceHistory",
    "DriftWindow",
    "FeatureDrift",
    "Finding",
    "Judgements",
    "Scope",
    "Score",
    "assess",
    "examples_needed",
    "thresholds_of",
]

WORLD_SHARE_MIN: Final = 0.5
"""Share of devices that must have changed against their own past for the world to have changed."""

JUDGED_SHARE_MIN: Final = 0.5
"""Share of the devices that must have enough examples before the fleet is judged."""

SPREADING_MIN: Final = 3
"""Devices that must have changed, and be most of the fleet, before none of them is odd alone."""

FLEET_KEY: Final = "*"


def assess(
    devices: Sequence[DeviceHistory], manifest: Manifest, known: Judgements | None = None
) -> tuple[Finding, ...]:
    """Findings for the fleet, each label value with two or more devices, and each device.

    Empty when the manifest has no baseline. `known`: of former rounds over the same version; a
    history that is the same object as then is not looked at again.
    """
    if manifest.baseline is None:
        return ()
    known = known if known is not None else Judgements(manifest)
    return _Assessment(known.judge(devices), len(devices), known).findings()


class _Assessment:
    """One `assess`: who is left out, what changed, and what that explains."""

    def __init__(self, judged: Sequence[Judged], count: int, known: Judgements) -> None:
        self._judged = judged
        self._known = known
        self._thresholds = thresholds_of(known.manifest)
        calibrated = self._thresholds is not DEFAULT_THRESHOLDS
        self._calibration = "calibrated" if calibrated else "defaults, not calibrated"
        self._enough = bool(judged) and len(judged) >= JUDGED_SHARE_MIN * count
        self._faulty = self._faulty_ids()
        self._sound = [d for d in judged if d.device_id not in self._faulty]
        moved = self._moved(self._sound)
        self._spreading = moved >= SPREADING_MIN and 2 * moved > len(self._sound)

    def findings(self) -> tuple[Finding, ...]:
        found: list[Finding] = []
        if self._enough and self._sound:
            found.append(self._group(Scope.FLEET, FLEET_KEY, self._sound, explained_by=None))
        changed = {f.key for f in found if f.cause}
        for label, members in self._by_label().items():
            explained_by = FLEET_KEY if FLEET_KEY in changed else None
            finding = self._group(Scope.LABEL, label, members, explained_by)
            found.append(finding)
            if finding.cause:
                changed.add(label)
        found.extend(self._device(device, changed) for device in self._judged)
        return tuple(found)

    def _moved(self, members: Sequence[Judged]) -> int:
        """How many changed against their own past."""
        limit = self._thresholds.device
        return sum(device.own.value > limit for device in members)

    def _faulty_ids(self) -> frozenset[str]:
        """Devices with an open sensor fault, and those whose drift is of one sensor alone while
        the others are quiet; when half of the fleet looks so, it is not their sensors."""
        known = {d.device_id for d in self._judged if d.sensor_fault_open}
        suspects = {d.device_id for d in self._judged if self._suspect(d)} - known
        if not suspects:
            return frozenset(known)
        others = [d for d in self._judged if d.device_id not in suspects | known]
        alone = len(self._judged) == 1
        few = 2 * len(suspects) < len(self._judged) - len(known)
        quiet = few and (not others or self._merged(others).value <= self._thresholds.fleet)
        return frozenset(known | suspects if alone or quiet else known)

    def _suspect(self, device: Judged) -> bool:
        own, limit = device.own, self._thresholds.sensor
        if max(own.distances[:-2]) <= limit:
            return False  # no sensor's excess is more than its largest distance
        sensor = own.concentrated_on
        return sensor is not None and own.sensors[sensor] > limit

    def _merged(self, members: Sequence[Judged]) -> Score:
        together = merge([device.own.current for device in members])
        return score(together, self._known.baseline, self._known.bins, self._known.manifest)

    def _group(
        self, scope: Scope, key: str, members: Sequence[Judged], explained_by: str | None
    ) -> Finding:
        merged, moved = self._merged(members), self._moved(members)
        share, limit = moved / len(members), self._thresholds.fleet
        changed = merged.value > limit and share >= WORLD_SHARE_MIN and explained_by is None
        return Finding(
            scope=scope,
            key=key,
            cause=Cause.WORLD_CHANGED if changed else None,
            score=merged,
            value=merged.value,
            threshold=limit,
            sensor=None,
            explanation=(
                f"the {scope} scores {merged.value:.2f} against the training data (threshold "
                f"{limit:.2f}), and {moved} of {len(members)} devices changed against their own "
                "past"
            ),
            beside={
                "thresholds": self._calibration,
                "devices": [device.device_id for device in members],
                "devices_changed": moved,
                "left_out": sorted(self._faulty),
                "explained_by": explained_by,
            },
        )

    def _by_label(self) -> Mapping[str, Sequence[Judged]]:
        """Sound devices by `name=value`, where there are two or more but not the whole fleet."""
        members: dict[str, list[Judged]] = {}
        for device in self._sound:
            for label in device.labels:
                members.setdefault(label, []).append(device)
        return {
            label: members[label]
            for label in sorted(members)
            if 2 <= len(members[label]) < len(self._sound)
        }

    def _device(self, device: Judged, changed: Collection[str]) -> Finding:
        faulty = device.device_id in self._faulty
        explained = None if faulty else self._explained(device, changed)
        if device.found is None or device.found[0] != (faulty, explained):
            made = self._sensor_fault(device) if faulty else self._difference(device, explained)
            device.found = (faulty, explained), made
        return device.found[1]

    def _explained(self, device: Judged, changed: Collection[str]) -> str | None:
        """What larger scope the device's drift is a part of."""
        if changed:
            for scope in (FLEET_KEY, *device.labels):
                if scope in changed:
                    return scope
        if self._spreading and device.own.value > self._thresholds.device:
            return FLEET_KEY
        return None

    def _difference(self, device: Judged, explained: str | None) -> Finding:
        name, own, limit = device.device_id, device.own, self._thresholds.device
        differs = own.value > limit and explained is None
        return Finding(
            scope=Scope.DEVICE,
            key=name,
            cause=Cause.DEVICE_DIFFERS if differs else None,
            score=own,
            value=own.value,
            threshold=limit,
            sensor=None,
            explanation=(
                f"{name} scores {own.value:.2f} against its own first examples "
                f"(threshold {limit:.2f})"
            ),
            beside={"thresholds": self._calibration, "explained_by": explained},
        )

    def _sensor_fault(self, device: Judged) -> Finding:
        """A known fault lasts as long as the sensor's excess does, whatever else moves."""
        own, limit = device.own, self._thresholds.sensor
        sensor = own.concentrated_on or max(own.sensors, key=own.sensors.__getitem__, default="")
        excess = own.sensors.get(sensor, 0.0)
        faulty = excess > limit
        return Finding(
            scope=Scope.DEVICE,
            key=device.device_id,
            cause=Cause.SENSOR_FAULT if faulty else None,
            score=own,
            value=excess,
            threshold=limit,
            sensor=sensor if faulty else None,
            explanation=(
                f"{sensor} of {device.device_id} moved {excess:.2f} further than its other "
                f"sensors (threshold {limit:.2f}), while the rest of the fleet did not"
            ),
            beside={"thresholds": self._calibration, "explained_by": None},
        )
