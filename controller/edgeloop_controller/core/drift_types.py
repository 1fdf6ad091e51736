"""What drift assessment takes and gives; `core.drift` re-exports every name.

Invariants: nothing here decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from edgeloop_controller.core.drift_scores import DriftWindow, Score

FEATURES_SHOWN_MAX: Final = 5


class Scope(StrEnum):
    FLEET = "fleet"
    LABEL = "label"
    DEVICE = "device"


class Cause(StrEnum):
    WORLD_CHANGED = "world_changed"
    SENSOR_FAULT = "sensor_fault"
    DEVICE_DIFFERS = "device_differs"


@dataclass(frozen=True, eq=False)
class DeviceHistory:
    """What a device said under one version: its first windows and its last ones, each in order
    and each enough to cover `examples_needed(manifest)`; they may overlap while it is young. All
    are over the bins of the version's baseline.

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
    `beside`: what it rests on beside its score.
    """

    scope: Scope
    key: str
    cause: Cause | None
    score: Score
    value: float
    threshold: float
    sensor: str | None
    explanation: str
    beside: Mapping[str, Any]

    @property
    def evidence(self) -> Mapping[str, Any]:
        """What the finding rests on, as a JSON document."""
        found = self.score
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
            **self.beside,
        }
