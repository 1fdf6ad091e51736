"""What is known of how a rollout's version behaves: compared windows and labelled pairs.

Invariants: only members count, only since the rollout started, and only where the version in
shadow is the one that the member ran before; each window and each label is read once.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import ComparedWindow, Evidence, LabelledPair, Member
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import samples, telemetry
from edgeloop_controller.store.rollouts import RolloutRow
from edgeloop_protocol.manifest import Manifest


class _Labelled(NamedTuple):
    device_id: str
    manifest_digest: str
    shadow_digest: str | None
    prediction: int
    shadow_prediction: int | None
    label: str


class EvidenceLog:
    """Of one rollout, since it started.

    Windows of one device against one old version are added up: the gates judge by counts and by
    the order in which old versions first appear (core.gates).
    """

    def __init__(self) -> None:
        self._windows_through = 0
        self._labels_through = 0
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}
        """(device, digest in shadow) → compared, disagreements; as they first appeared."""
        self._windows: dict[tuple[str, str], ComparedWindow] = {}
        """Made of the counts when they are asked for."""
        self._labelled: dict[int, _Labelled] = {}
        """By the id of the sample."""

    def read(self, session: Session, rollout: RolloutRow) -> bool:
        """What came since the last time; True if anything did."""
        windows = self._read_windows(session, rollout)
        return self._read_labels(session, rollout) or windows

    def of_members(self, members: Mapping[str, Member], registry: Registry) -> Evidence:
        before = {m.device_id: m.before_digest for m in members.values() if m.before_digest}
        windows = [
            self._windows.get(key) or self._window(key, registry)
            for key in self._counts
            if before.get(key[0]) == key[1]
        ]
        pairs = [
            _pair(example, registry)
            for example in self._labelled.values()
            if before.get(example.device_id) == example.shadow_digest
        ]
        return Evidence(windows, pairs)

    def _window(self, key: tuple[str, str], registry: Registry) -> ComparedWindow:
        device_id, shadow = key
        made = ComparedWindow(device_id, registry.manifest(shadow).ref(), *self._counts[key])
        self._windows[key] = made
        return made

    def _read_windows(self, session: Session, rollout: RolloutRow) -> bool:
        last = telemetry.last_window_id(session)
        if last == self._windows_through:
            return False
        fresh = telemetry.compared_windows(
            session,
            rollout.slot,
            rollout.manifest_digest,
            rollout.started_at,
            self._windows_through,
        )
        for device_id, shadow, count, disagreements in fresh:
            key = (device_id, shadow)
            had = self._counts.get(key, (0, 0))
            self._counts[key] = had[0] + count, had[1] + disagreements
            self._windows.pop(key, None)
        self._windows_through = last
        return bool(fresh)

    def _read_labels(self, session: Session, rollout: RolloutRow) -> bool:
        last = samples.last_label_change(session)
        if last == self._labels_through:
            return False
        fresh = samples.shadowed(
            session,
            rollout.slot,
            rollout.manifest_digest,
            rollout.started_at,
            self._labels_through,
        )
        for sample, label in fresh:
            self._labelled[sample.id] = _Labelled(
                sample.device_id,
                sample.manifest_digest,
                sample.shadow_digest,
                sample.prediction,
                sample.shadow_prediction,
                label.label,
            )
        self._labels_through = last
        return bool(fresh)


def _pair(example: _Labelled, registry: Registry) -> LabelledPair:
    target = registry.manifest(example.manifest_digest)
    return LabelledPair(
        device_id=example.device_id,
        target_correct=label_name(target, example.prediction) == example.label,
        shadow_correct=label_name(target, example.shadow_prediction) == example.label,
    )


def label_name(manifest: Manifest, prediction: int | None) -> str | None:
    """None: the device answered nothing, or a number that the version has no label for."""
    if prediction is None or prediction >= len(manifest.labels):
        return None
    return manifest.labels[prediction]
