"""What is known of how a rollout's version behaves: compared windows and labelled pairs.

Invariants: only members count, only since the rollout started, and only where the version in
shadow is the one that the member ran before.
"""

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import ComparedWindow, Evidence, LabelledPair, RolloutState
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import samples, telemetry
from edgeloop_controller.store.tables import Label, Rollout, Sample
from edgeloop_protocol.manifest import Manifest


def gather(session: Session, rollout: Rollout, state: RolloutState, registry: Registry) -> Evidence:
    """In the order in which it came."""
    before = {m.device_id: m.before_digest for m in state.members.values() if m.before_digest}
    if not before:
        return Evidence()
    slot, target, since = rollout.slot, rollout.manifest_digest, rollout.started_at
    windows = tuple(
        ComparedWindow(device_id, registry.manifest(shadow).ref(), count, disagreements)
        for device_id, shadow, count, disagreements in telemetry.compared_windows(
            session, slot, target, since
        )
        if before.get(device_id) == shadow
    )
    pairs = tuple(
        _pair(sample, label, registry)
        for sample, label in samples.shadowed(session, slot, target, since)
        if before.get(sample.device_id) == sample.shadow_digest
    )
    return Evidence(windows, pairs)


def _pair(sample: Sample, label: Label, registry: Registry) -> LabelledPair:
    target = registry.manifest(sample.manifest_digest)
    return LabelledPair(
        device_id=sample.device_id,
        target_correct=label_name(target, sample.prediction) == label.label,
        shadow_correct=label_name(target, sample.shadow_prediction) == label.label,
    )


def label_name(manifest: Manifest, prediction: int | None) -> str | None:
    """None: the device answered nothing, or a number that the version has no label for."""
    if prediction is None or prediction >= len(manifest.labels):
        return None
    return manifest.labels[prediction]
