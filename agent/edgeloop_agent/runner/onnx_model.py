"""A model version in onnxruntime: loaded from verified bytes, run on one example or on several.

Invariants: the bytes loaded are those that the manifest's digest names, and the manifest is the
one that the version's digest names, checked at every start; the model is loaded from memory, in
an empty working directory, so that external data cannot name a file; one thread computes.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Manifest, parse_manifest
from edgeloop_protocol.preprocessing import Floats
from edgeloop_protocol.preprocessing import features as compute_features

_QUIET: Final = 3  # errors only; onnxruntime warns on stderr about harmless things


class OnnxModel:
    """Raises ModelLoadError when the version cannot be run here."""

    def __init__(self, files: ModelFiles) -> None:
        self.version = files.version
        self.manifest, model = _verified(files)
        self._session = _session(model)
        self._input = self._check_input()
        self._outputs = [self.manifest.scores_output]
        self._width = len(self.manifest.labels)

    def features(self, values: Floats) -> Floats:
        """The feature vector of one example; raises ManifestError when its shape is wrong.

        May hold NaN or Inf where finite values are too large for float32.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            vector: Floats = compute_features(self.manifest.preprocessing, values[np.newaxis])[0]
        if len(vector) != len(self.manifest.features):
            raise ManifestError(
                f"an example gives {len(vector)} features; the model wants "
                f"{len(self.manifest.features)}"
            )
        return vector

    def prepare(self, vectors: Floats) -> NDArray[Any]:
        """One feature vector, or (n, features), in the dtype and shape of the model's input."""
        examples = 1 if vectors.ndim == 1 else len(vectors)
        return vectors.astype(self._dtype).reshape((examples, *self._shape))

    def run(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """Scores of shape (n, labels); raises ModelRunError when the model gives none."""
        expected = (len(prepared), self._width)
        try:
            scores = self._session.run(self._outputs, {self._input: prepared})[0]
        except Exception as error:  # the runtime raises its own unrelated types for bad inputs
            raise ModelRunError(f"inference failed: {error}") from error
        if getattr(scores, "shape", None) != expected:
            raise ModelRunError(
                f"{self._outputs[0]} has shape {getattr(scores, 'shape', type(scores).__name__)}; "
                f"expected {expected}"
            )
        if scores.dtype.kind not in "fiu":
            raise ModelRunError(f"{self._outputs[0]} has dtype {scores.dtype}; expected numbers")
        return np.asarray(scores)

    def _check_input(self) -> str:
        spec = self.manifest.inputs[0]
        given = [tensor.name for tensor in self._session.get_inputs()]
        if given != [spec.name]:
            raise ModelLoadError(f"the model's inputs are {given}; the manifest says {spec.name!r}")
        outputs = [tensor.name for tensor in self._session.get_outputs()]
        if self.manifest.scores_output not in outputs:
            raise ModelLoadError(
                f"the model's outputs are {outputs}; the manifest wants "
                f"{self.manifest.scores_output!r}"
            )
        self._dtype = np.dtype(spec.dtype)
        inner = spec.shape[1:]
        known = [size for size in inner if size is not None]
        self._shape = tuple(known) if len(known) == len(inner) else (-1,)
        return spec.name


class ModelRunError(ModelLoadError):
    """An example that the model gave no usable answer to."""


def _verified(files: ModelFiles) -> tuple[Manifest, bytes]:
    try:
        document = Path(files.manifest_path).read_bytes()
        model = Path(files.model_path).read_bytes()
    except OSError as error:
        raise ModelLoadError(f"cannot read {files.version} from the store: {error}") from error
    if hashlib.sha256(document).hexdigest() != files.version.manifest_digest:
        raise ModelLoadError(f"the stored manifest of {files.version} is not what was offered")
    try:
        manifest = parse_manifest(document)
    except ManifestError as error:
        raise ModelLoadError(str(error)) from error
    if hashlib.sha256(model).hexdigest() != manifest.artifact.digest:
        raise ModelLoadError(f"the stored model of {files.version} is damaged: digest mismatch")
    return manifest, model


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own unrelated types for bad models
        raise ModelLoadError(f"onnxruntime cannot load it: {error}") from error
