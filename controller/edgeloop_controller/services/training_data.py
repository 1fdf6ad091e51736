"""What a training run learns from: labelled samples, all there are that can be trusted.

Invariants: a device's samples from before or during a sensor fault are left out; a sample whose
features or label do not fit the parent version is left out and counted.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from edgeloop_controller.store import drift, samples, versions
from edgeloop_controller.store.tables import DriftAlarm
from edgeloop_controller.training.dataset import LabelledSample
from edgeloop_protocol.manifest import Manifest

BEFORE: Final = "before_drift"
SINCE: Final = "since_drift"
_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True)
class TrainingData:
    samples: tuple[LabelledSample, ...]
    untrusted_devices: tuple[str, ...]
    left_out: int
    from_time: float | None
    to_time: float | None

    def describe(self) -> dict[str, Any]:
        """For a run's result and for lineage; times by the controller's clock."""
        return {
            "from": self.from_time,
            "to": self.to_time,
            "samples": len(self.samples),
            "devices": sorted({sample.device_id for sample in self.samples}),
            "untrusted_devices": list(self.untrusted_devices),
            "left_out": self.left_out,
        }


def collect(
    session: Session, slot: str, parent: Manifest, alarm: DriftAlarm | None
) -> TrainingData:
    """Samples of all versions of the parent's model, both before and since the drift."""
    names = {row.manifest_digest: row.version for row in versions.of_model(session, parent.name)}
    untrusted = drift.untrusted_until(session, slot)
    expected_bytes = len(parent.features) * _FLOAT32_BYTES
    taken: list[LabelledSample] = []
    received: list[float] = []
    left_out = 0
    for sample, label in samples.labelled(session, slot, names):
        whole = len(sample.features) == expected_bytes and samples.is_whole(sample)
        fits = whole and label.label in parent.labels
        if not fits or sample.received_at <= untrusted.get(sample.device_id, 0.0):
            left_out += 1
            continue
        since = alarm is not None and sample.received_at >= alarm.raised_at
        received.append(sample.received_at)
        taken.append(
            LabelledSample(
                reference=sample.reference,
                device_id=sample.device_id,
                taken_at=sample.device_taken_at,
                version=names[sample.manifest_digest],
                features=sample.features,
                label=label.label,
                subset=SINCE if since else BEFORE,
                recent=since or alarm is None,
            )
        )
    return TrainingData(
        samples=tuple(taken),
        untrusted_devices=tuple(sorted(untrusted)),
        left_out=left_out,
        from_time=min(received, default=None),
        to_time=max(received, default=None),
    )
