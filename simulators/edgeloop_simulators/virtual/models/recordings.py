"""Recorded examples by what is seen: which stream, in which phase, by which broken sensors.

Invariants: frozen; a reference names one example, and with it one true label, wherever it is
played; the examples of two streams or phases are never mixed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.datasets.windows import Dataset, Floats, Window
from edgeloop_simulators.errors import DatasetError


class Scene(NamedTuple):
    """What a device's sensors show at one time. `dead` and `swapped` name sensors of the manifest
    of the version that looks; `swapped` holds none or two."""

    stream: str
    phase: str
    dead: str | None = None
    swapped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recordings:
    """`streams`: stream → phase → examples, at least one each."""

    streams: Mapping[str, Mapping[str, Sequence[Window]]]

    def windows(self, scene: Scene) -> Sequence[Window]:
        """As they were recorded, by sound sensors. Raises DatasetError for an unknown scene."""
        phases = self.streams.get(scene.stream)
        if phases is None:
            known = ", ".join(list(self.streams)[:10])
            raise DatasetError(f"no recorded stream {scene.stream!r}; the first ones: {known}")
        windows = phases.get(scene.phase)
        if not windows:
            raise DatasetError(
                f"stream {scene.stream!r} was not recorded in phase {scene.phase!r}; its phases: "
                f"{', '.join(phases)}"
            )
        return windows

    def label_of(self, device_id: str, reference: str) -> str | None:  # noqa: ARG002
        """The true label of a reference, on whichever device; what an annotator would say."""
        return self._labels.get(reference)

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        return {
            window.reference: window.label
            for phases in self.streams.values()
            for windows in phases.values()
            for window in windows
        }


def recordings_of(dataset: Dataset) -> Recordings:
    """One stream for each portion, named as its device, with the phases `before` and `after`."""
    return Recordings(
        {p.device_id: {"before": p.before, "after": p.after} for p in dataset.portions}
    )


def as_seen(values: Floats, scene: Scene, manifest: Manifest) -> Floats:
    """One example's raw values through the scene's broken sensors: a dead one shows zero, two
    swapped ones each other's. Raises DatasetError for a sensor that the manifest does not know."""
    if scene.dead is None and not scene.swapped:
        return values
    seen = values.copy()
    if scene.swapped:
        one, other = (columns_of(manifest, sensor) for sensor in scene.swapped)
        if len(one) != len(other):
            raise DatasetError(
                f"{' and '.join(scene.swapped)} have {len(one)} and {len(other)} channels: only "
                "sensors of as many channels can be swapped"
            )
        seen[..., one], seen[..., other] = values[..., other], values[..., one]
    if scene.dead is not None:
        seen[..., columns_of(manifest, scene.dead)] = 0.0
    return seen


def columns_of(manifest: Manifest, sensor: str) -> list[int]:
    """The columns of an example that a sensor feeds. Raises DatasetError when there is none."""
    preprocessing = manifest.preprocessing
    if preprocessing.kind == "none":
        columns = [at for at, f in enumerate(manifest.features) if f.sensor == sensor]
    else:
        sensors = {feature.name: feature.sensor for feature in manifest.features}
        first = preprocessing.statistics[0]
        columns = [
            at
            for at, channel in enumerate(preprocessing.channels)
            if sensors[f"{channel}_{first}"] == sensor
        ]
    if not columns:
        known = ", ".join(sorted({feature.sensor for feature in manifest.features})[:20])
        raise DatasetError(f"{manifest.name} has no sensor {sensor!r}; it has: {known}")
    return columns
