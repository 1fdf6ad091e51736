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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgeloop_controller.core.drift_scores import (
    DriftWindow,
    FeatureDrift,
    Observed,
    Score,
    fits,
    merge,
    merge_windows,
    observed_baseline,
    score,
)
from edgeloop_controller.core.drift_types import Cause, DeviceHistory, Finding, Scope
from edgeloop_protocol.manifest import Baseline, DriftThresholds, Manifest

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

DEFAULT_THRESHOLDS: Final = DriftThresholds(examples=100, device=2.0, fleet=2.0, sensor=1.0)
"""Used where a baseline came without groups to calibrate on: chosen to ring late, not often."""

WORLD_SHARE_MIN: Final = 0.5
"""Share of devices that must have changed against their own past for the world to have changed."""

JUDGED_SHARE_MIN: Final = 0.5
"""Share of the devices that must have enough examples before the fleet is judged."""

SPREADING_MIN: Final = 3
"""Devices that must have changed, and be most of the fleet, before none of them is odd alone."""

FEATURES_SHOWN_MAX: Final = 5
FLEET_KEY: Final = "*"


@dataclass(frozen=True)
class _Judged:
    """A device with a full reference and as many recent examples after it."""

    history: DeviceHistory
    recent: Observed
    own: Score
    """Recent examples against the device's own reference."""


def thresholds_of(manifest: Manifest) -> DriftThresholds:
    """The version's calibrated thresholds, or the documented defaults."""
    calibrated = manifest.baseline.thresholds if manifest.baseline else None
    return calibrated or DEFAULT_THRESHOLDS


def examples_needed(manifest: Manifest) -> int:
    """How many examples a device's reference and its recent part each need."""
    return thresholds_of(manifest).examples


@dataclass
class Judgements:
    """Of one version: how each device scored, kept while it says nothing new."""

    _kept: dict[str, tuple[int, Observed, Score]] = field(default_factory=dict)
    """By device; with the id of the last window that it is about."""

    def judge(self, history: DeviceHistory, manifest: Manifest) -> _Judged | None:
        last_id = history.last[-1].id if history.last else -1
        kept = self._kept.get(history.device_id)
        if kept is not None and kept[0] == last_id:
            return _Judged(history, kept[1], kept[2])
        judged = _judge(history, manifest)
        if judged is None:
            self._kept.pop(history.device_id, None)
        else:
            self._kept[history.device_id] = (last_id, judged.recent, judged.own)
        return judged


def assess(
    devices: Sequence[DeviceHistory], manifest: Manifest, known: Judgements | None = None
) -> tuple[Finding, ...]:
    """Findings for the fleet, each label value with two or more devices, and each device.

    Empty when the manifest has no baseline. Raises nothing on odd windows: one whose histograms
    are not over the baseline's bins is left out. `known`: of former rounds over the same version.
    """
    if manifest.baseline is None:
        return ()
    known = known if known is not None else Judgements()
    judged = [found for history in devices if (found := known.judge(history, manifest))]
    return _Assessment(judged, len(devices), manifest, manifest.baseline).findings()


def _judge(history: DeviceHistory, manifest: Manifest) -> _Judged | None:
    baseline, needed = manifest.baseline, examples_needed(manifest)
    assert baseline is not None
    reference = _take([w for w in history.first if fits(w, baseline)], needed)
    if not reference:
        return None
    after = [w for w in history.last if fits(w, baseline) and w.id > reference[-1].id]
    recent = _take(after[::-1], needed)
    if not recent:
        return None
    observed = merge_windows(recent)
    return _Judged(history, observed, score(observed, merge_windows(reference), manifest))


def _take(windows: Sequence[DriftWindow], needed: int) -> Sequence[DriftWindow]:
    """From the first on, as many as cover `needed` examples; empty when they do not."""
    total = 0
    for number, window in enumerate(windows, start=1):
        total += window.count
        if total >= needed:
            return windows[:number]
    return ()


class _Assessment:
    """One `assess`: who is left out, what changed, and what that explains."""

    def __init__(
        self, judged: Sequence[_Judged], known: int, manifest: Manifest, baseline: Baseline
    ) -> None:
        self._judged = judged
        self._manifest = manifest
        self._thresholds = thresholds_of(manifest)
        self._baseline = observed_baseline(baseline)
        self._enough = bool(judged) and len(judged) >= JUDGED_SHARE_MIN * known
        self._faulty = self._faulty_ids()
        self._sound = [d for d in judged if d.history.device_id not in self._faulty]
        moved = sum(d.own.value > self._thresholds.device for d in self._sound)
        self._spreading = moved >= SPREADING_MIN and 2 * moved > len(self._sound)

    def findings(self) -> tuple[Finding, ...]:
        found: list[Finding] = []
        if self._enough and self._sound:
            found.append(self._group(Scope.FLEET, FLEET_KEY, self._sound, explained_by=None))
        changed = {f.key: f for f in found if f.cause}
        for label, members in self._by_label().items():
            finding = self._group(Scope.LABEL, label, members, changed.get(FLEET_KEY))
            found.append(finding)
            if finding.cause:
                changed[label] = finding
        found.extend(self._device(device, changed) for device in self._judged)
        return tuple(found)

    # ---- a broken sensor ------------------------------------------------------------------------

    def _faulty_ids(self) -> frozenset[str]:
        """Devices with an open sensor fault, and those whose drift is of one sensor alone while
        the others are quiet; when half of the fleet looks so, it is not their sensors."""
        known = {d.history.device_id for d in self._judged if d.history.sensor_fault_open}
        suspects = {d.history.device_id for d in self._judged if self._suspect(d)} - known
        others = [d for d in self._judged if d.history.device_id not in suspects | known]
        alone = len(self._judged) == 1
        few = 2 * len(suspects) < len(self._judged) - len(known)
        quiet = not others or not self._changed(others)
        return frozenset(known | suspects if alone or (few and quiet) else known)

    def _suspect(self, device: _Judged) -> bool:
        sensor = device.own.concentrated_on
        return sensor is not None and device.own.sensors[sensor] > self._thresholds.sensor

    # ---- fleet and labels -----------------------------------------------------------------------

    def _changed(self, members: Sequence[_Judged]) -> bool:
        merged = score(merge([d.recent for d in members]), self._baseline, self._manifest)
        return merged.value > self._thresholds.fleet

    def _group(
        self, scope: Scope, key: str, members: Sequence[_Judged], explained_by: Finding | None
    ) -> Finding:
        merged = score(merge([d.recent for d in members]), self._baseline, self._manifest)
        moved = sum(d.own.value > self._thresholds.device for d in members)
        share, limit = moved / len(members), self._thresholds.fleet
        changed = merged.value > limit and share >= WORLD_SHARE_MIN and explained_by is None
        explanation = (
            f"the {scope} scores {merged.value:.2f} against the training data (threshold "
            f"{limit:.2f}), and {moved} of {len(members)} devices changed against their own past"
        )
        return Finding(
            scope=scope,
            key=key,
            cause=Cause.WORLD_CHANGED if changed else None,
            score=merged,
            value=merged.value,
            threshold=limit,
            sensor=None,
            explanation=explanation,
            evidence={
                **_evidence(merged),
                **self._calibration(),
                "devices": [d.history.device_id for d in members],
                "devices_changed": moved,
                "left_out": sorted(self._faulty),
                "explained_by": explained_by.key if explained_by else None,
            },
        )

    def _by_label(self) -> Mapping[str, Sequence[_Judged]]:
        """Sound devices by `name=value`, where there are two or more but not the whole fleet."""
        members: dict[str, list[_Judged]] = {}
        for device in self._sound:
            for name, value in device.history.labels.items():
                members.setdefault(f"{name}={value}", []).append(device)
        return {
            label: members[label]
            for label in sorted(members)
            if 2 <= len(members[label]) < len(self._sound)
        }

    # ---- one device -----------------------------------------------------------------------------

    def _device(self, device: _Judged, changed: Mapping[str, Finding]) -> Finding:
        name, own = device.history.device_id, device.own
        if name in self._faulty:
            return self._sensor_finding(device)
        labels = [f"{key}={value}" for key, value in device.history.labels.items()]
        explained = next((key for key in (FLEET_KEY, *labels) if key in changed), None)
        above = own.value > self._thresholds.device
        if above and explained is None and self._spreading:
            explained = FLEET_KEY
        differs = above and explained is None
        return Finding(
            scope=Scope.DEVICE,
            key=name,
            cause=Cause.DEVICE_DIFFERS if differs else None,
            score=own,
            value=own.value,
            threshold=self._thresholds.device,
            sensor=None,
            explanation=(
                f"{name} scores {own.value:.2f} against its own first examples "
                f"(threshold {self._thresholds.device:.2f})"
            ),
            evidence={**_evidence(own), **self._calibration(), "explained_by": explained},
        )

    def _sensor_finding(self, device: _Judged) -> Finding:
        """A known fault lasts as long as the sensor's excess does, whatever else moves."""
        own, limit = device.own, self._thresholds.sensor
        sensor = own.concentrated_on or max(own.sensors, key=own.sensors.__getitem__, default="")
        excess = own.sensors.get(sensor, 0.0)
        faulty = excess > limit
        return Finding(
            scope=Scope.DEVICE,
            key=device.history.device_id,
            cause=Cause.SENSOR_FAULT if faulty else None,
            score=own,
            value=excess,
            threshold=limit,
            sensor=sensor if faulty else None,
            explanation=(
                f"{sensor} of {device.history.device_id} moved {excess:.2f} further than its other "
                f"sensors (threshold {limit:.2f}), while the rest of the fleet did not"
            ),
            evidence={**_evidence(own), **self._calibration(), "explained_by": None},
        )

    def _calibration(self) -> Mapping[str, Any]:
        calibrated = self._thresholds is not DEFAULT_THRESHOLDS
        return {"thresholds": "calibrated" if calibrated else "defaults, not calibrated"}


def _evidence(found: Score) -> Mapping[str, Any]:
    """What a finding rests on, as a JSON document."""
    largest = sorted(found.features, key=lambda feature: feature.psi, reverse=True)
    return {
        "examples": found.examples,
        "features": [
            {"name": f.name, "sensor": f.sensor, "psi": round(f.psi, 4), "ks": f.ks}
            for f in largest[:FEATURES_SHOWN_MAX]
        ],
        "ks": found.ks,
        "predictions_psi": round(found.predictions_psi, 4),
        "confidence_psi": round(found.confidence_psi, 4),
        "confidence_ks": found.confidence_ks,
        "sensors": {name: round(excess, 4) for name, excess in found.sensors.items()},
    }
