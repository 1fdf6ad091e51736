"""A Python function as a version: for tests of models that are not exported yet.

Invariants: it is asked one example at a time, as an ONNX model on a device is; what it raises is an
inference that failed, and what is not finite is counted as such.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.runner.model import Model, ModelRunError
from edgeloop_controller.packaging.baseline import make_baseline
from edgeloop_controller.packaging.calibration import calibrate
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, TensorSpec
from edgeloop_protocol.preprocessing import features as compute_features
from edgeloop_simulators.datasets.windows import Dataset

Scores = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Features (n, features) → scores (n, labels), labels in the dataset's order."""

SIZE_BYTES: Final = 200_000
_INPUT: Final = "input"


class FunctionModel(Model):
    """A model that loads nothing."""

    def __init__(self, manifest: Manifest, function: Scores) -> None:
        self.version = manifest.ref()
        self.manifest = manifest
        self._function = function

    @property
    def takes_several(self) -> bool:
        return False

    def prepare(self, vectors: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        return {_INPUT: vectors if vectors.ndim == 2 else vectors[np.newaxis]}

    def bind(self, vector: NDArray[np.float32]) -> None:
        """What the user's code gives is checked each time."""

    def reset(self) -> None:
        """A function remembers nothing that is ours."""

    def run(self, prepared: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Raises ModelRunError."""
        try:
            scores = np.asarray(self._function(prepared[_INPUT]))
        except Exception as error:  # whatever the user's code raises
            raise ModelRunError(f"{error!r}") from error
        width = len(self.manifest.labels)
        if scores.shape != (1, width):
            raise ModelRunError(f"the function gave {scores.shape}; expected (1, {width})")
        return scores


def function_artifact(name: str) -> bytes:
    """What devices download of it: bytes that only have a size."""
    return hashlib.sha256(name.encode()).digest() * (SIZE_BYTES // 32)


def function_manifest(
    name: str, version: str, artifact: bytes, dataset: Dataset, function: Scores | None
) -> Manifest:
    """With a baseline from the dataset; `function` None: without one, for a version that may not
    answer."""
    width = len(dataset.feature_names)
    channels = {
        f"{channel}_{statistic}": channel
        for channel in dataset.preprocessing.channels
        for statistic in dataset.preprocessing.statistics
    }
    manifest = Manifest(
        name=name,
        version=version,
        artifact=Artifact(digest=hashlib.sha256(artifact).hexdigest(), size_bytes=len(artifact)),
        inputs=(TensorSpec(name=_INPUT, dtype="float32", shape=(None, width)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(None, len(dataset.labels))),),
        scores_output="scores",
        preprocessing=dataset.preprocessing,
        features=tuple(Feature(name=f, sensor=channels.get(f, f)) for f in dataset.feature_names),
        labels=dataset.labels,
    )
    if function is None:
        return manifest
    windows = dataset.baseline
    vectors = compute_features(dataset.preprocessing, np.stack([w.values for w in windows]))
    groups = np.array([window.group for window in windows])
    labels = np.array([window.label for window in windows])
    thresholds = calibrate(vectors, groups, labels, manifest)
    baseline = make_baseline(vectors, np.asarray(function(vectors)), thresholds)
    return manifest.model_copy(update={"baseline": baseline})
