"""What drift assessment takes and gives; `core.drift` re-exports every name.

Invariants: nothing here decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeloop_controller.core.drift_scores import DriftWindow, Score


class Scope(StrEnum):
    FLEET = "fleet"
    LABEL = "label"
    DEVICE = "device"


class Cause(StrEnum):
    WORLD_CHANGED = "world_changed"
    SENSOR_FAULT = "sensor_fault"
    DEVICE_DIFFERS = "device_differs"


@dataclass(frozen=True)
class DeviceHistory:
    """What a device said under one version: its first windows and its last ones, each in order
    and each enough to cover `examples_needed(manifest)`; they may overlap while it is young.

    `labels` are the effective ones; `sensor_fault_open` says that such an alarm is open on it.
    Hand in only devices whose last windows are recent: what is silent is not judged by its past.
    """

    device_id: str
    labels: Mapping[str, str]
    first: Sequence[DriftWindow]
    last: Sequence[DriftWindow]
    sensor_fault_open: bool = False


@dataclass(frozen=True)
class Finding:
    """What one scope shows now; `cause` is None while nothing is found.

    `key` is `*` for the fleet, `name=value` for a label, the device id for a device. `value` is
    what stands against `threshold`: the score's value, or the sensor's excess in a sensor_fault.
    """

    scope: Scope
    key: str
    cause: Cause | None
    score: Score
    value: float
    threshold: float
    sensor: str | None
    explanation: str
    evidence: Mapping[str, Any]
