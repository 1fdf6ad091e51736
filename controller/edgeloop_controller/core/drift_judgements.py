"""How each device scores against its own past: kept while the device says nothing new.

Invariants: what is kept is what would be found anew; a device with too few examples is not judged;
its reference, once it is whole, stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.core.drift_scores import (
    Bins,
    DriftWindow,
    Observed,
    Score,
    bins_of,
    merge_windows,
    observed_baseline,
    score_each,
)
from edgeloop_controller.core.drift_types import DeviceHistory, Finding
from edgeloop_protocol.manifest import DriftThresholds, Manifest

DEFAULT_THRESHOLDS: Final = DriftThresholds(examples=100, device=2.0, fleet=2.0, sensor=1.0)
"""Used where a baseline came without groups to calibrate on: chosen to ring late, not often."""


@dataclass
class Judged:
    """A device with a full reference and as many recent examples after it."""

    device_id: str
    labels: tuple[str, ...]
    """Each `name=value`."""
    sensor_fault_open: bool
    own: Score
    """Recent examples against the device's own reference."""
    found: tuple[tuple[bool, str | None], Finding] | None = None
    """What was found of it last; and whether it was faulty then, and what explained it."""


def thresholds_of(manifest: Manifest) -> DriftThresholds:
    """The version's calibrated thresholds, or the documented defaults."""
    calibrated = manifest.baseline.thresholds if manifest.baseline else None
    return calibrated or DEFAULT_THRESHOLDS


def examples_needed(manifest: Manifest) -> int:
    """How many examples a device's reference and its recent part each need."""
    return thresholds_of(manifest).examples


@dataclass
class _Kept:
    """What was made of a history; `reference` lasts as long as the device runs the version."""

    history: DeviceHistory
    reference: Observed | None
    judged: Judged | None


class Judgements:
    """Of one version with a baseline: how each device scored, kept while it says nothing new."""

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.baseline is not None
        self.manifest = manifest
        self.bins: Bins = bins_of(manifest.baseline)
        self.baseline = observed_baseline(manifest.baseline)
        self._needed = examples_needed(manifest)
        self._kept: dict[str, _Kept] = {}

    def judge(self, histories: Sequence[DeviceHistory]) -> list[Judged]:
        """Those that have enough examples; others that were known are forgotten."""
        before, self._kept = self._kept, {}
        fresh: list[tuple[_Kept, Observed]] = []
        for history in histories:
            kept = before.get(history.device_id)
            if kept is None or kept.history is not history:
                kept = self._renewed(history, kept, fresh)
            self._kept[history.device_id] = kept
        self._score(fresh)
        return [kept.judged for kept in self._kept.values() if kept.judged is not None]

    def _renewed(
        self, history: DeviceHistory, before: _Kept | None, fresh: list[tuple[_Kept, Observed]]
    ) -> _Kept:
        known = before is not None and before.history.first == history.first
        reference = before.reference if before is not None and known else None
        first = _take(history.first, self._needed)
        if first and reference is None:
            reference = merge_windows(first)
        kept = _Kept(history, reference, None)
        after = [window for window in history.last if first and window.id > first[-1].id]
        recent = _take(after[::-1], self._needed)
        if recent:
            fresh.append((kept, merge_windows(recent)))
        return kept

    def _score(self, fresh: Sequence[tuple[_Kept, Observed]]) -> None:
        pairs = [(recent, kept.reference) for kept, recent in fresh if kept.reference is not None]
        scores = score_each(pairs, self.bins, self.manifest)
        for (kept, _), own in zip(fresh, scores, strict=True):
            history = kept.history
            labels = tuple(f"{name}={value}" for name, value in history.labels.items())
            kept.judged = Judged(history.device_id, labels, history.sensor_fault_open, own)


def _take(windows: Sequence[DriftWindow], needed: int) -> Sequence[DriftWindow]:
    """From the first on, as many as cover `needed` examples; empty when they do not."""
    total = 0
    for number, window in enumerate(windows, start=1):
        total += window.count
        if total >= needed:
            return windows[:number]
    return ()
