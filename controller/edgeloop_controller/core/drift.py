"""Drift: who differs from the version's baseline or from its own past, and why.

Invariants: pure over window summaries; a device with a broken sensor never counts in a merge; a
scope that has too few examples is not judged at all; every finding carries the figures it rests on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Sketches


class Scope(StrEnum):
    FLEET = "fleet"
    LABEL = "label"
    DEVICE = "device"


class Cause(StrEnum):
    WORLD_CHANGED = "world_changed"
    SENSOR_FAULT = "sensor_fault"
    DEVICE_DIFFERS = "device_differs"


@dataclass(frozen=True)
class DriftWindow:
    """One WindowSummary of a version: `id` orders them (the row's id); counts as on the wire."""

    id: int
    count: int
    features: tuple[tuple[int, ...], ...]
    predictions: tuple[int, ...]
    confidence: tuple[int, ...]
    sketches: Sketches | None = None


@dataclass(frozen=True)
class DeviceHistory:
    """What a device said under one version: its first windows and its last ones, each in order
    and each enough to cover `examples_needed(manifest)`; they may overlap while it is young.

    `labels` are the effective ones; `sensor_fault_open` says that such an alarm is open on it.
    """

    device_id: str
    labels: Mapping[str, str]
    first: Sequence[DriftWindow]
    last: Sequence[DriftWindow]
    sensor_fault_open: bool = False


@dataclass(frozen=True)
class FeatureDrift:
    """PSI of one feature, and the KS distance where sketches came; `ks` None without."""

    name: str
    sensor: str
    psi: float
    ks: float | None = None


@dataclass(frozen=True)
class Score:
    """How far `examples` lie from what they are compared with; `value` is what is judged."""

    value: float
    examples: int
    features: tuple[FeatureDrift, ...]
    predictions_psi: float
    confidence_psi: float
    sensors: Mapping[str, float]
    """Each sensor's excess; empty with a single sensor."""


@dataclass(frozen=True)
class Finding:
    """What one scope shows now; `cause` is None while nothing is found.

    `key` is `*` for the fleet, `name=value` for a label, the device id for a device.
    """

    scope: Scope
    key: str
    cause: Cause | None
    score: Score
    threshold: float
    sensor: str | None = None
    explanation: str = ""
    evidence: Mapping[str, Any] | None = None


def examples_needed(manifest: Manifest) -> int:
    """How many examples a device's reference and its recent part each need."""
    raise NotImplementedError


def assess(devices: Sequence[DeviceHistory], manifest: Manifest) -> tuple[Finding, ...]:
    """Findings for the fleet, each label value with two or more devices, and each device.

    Empty when the manifest has no baseline. Raises nothing on odd windows: one whose number of
    features or bins is not the baseline's is left out.
    """
    raise NotImplementedError
