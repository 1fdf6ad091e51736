"""A model version: loaded from verified bytes by its runtime, run on one example or on several.

Invariants: the bytes loaded are those that the manifest's digest names, and the manifest is the
one that the version's digest names, checked at every start; what the file says of its inputs and
outputs is what the manifest says. A stateful model is run on one example after the other.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.runtimes import Runtime, Session, runtime_named
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.feeding import Feeder, Tensors, scores
from edgeloop_protocol.manifest import Manifest, TensorSpec, parse_manifest
from edgeloop_protocol.preprocessing import Floats
from edgeloop_protocol.preprocessing import features as compute_features


class Model:
    """Raises ModelLoadError when the version cannot be run here."""

    def __init__(self, files: ModelFiles, runtime: Runtime | None = None) -> None:
        """`runtime`: by default the one that the manifest names."""
        self.version = files.version
        self.manifest, model = _verified(files)
        self.feeder = Feeder.of(self.manifest)
        runtime = runtime or runtime_named(self.manifest.artifact.runtime)
        self._session = runtime.load(model, self.manifest)
        self._scores = _agreed(self.manifest, self._session)
        self._width = len(self.manifest.labels)

    @property
    def takes_several(self) -> bool:
        """Several examples at once give what each gives alone."""
        return self.feeder.takes_several and not self.manifest.stateful

    def features(self, values: Floats) -> Floats:
        """The feature vector of one example; raises ManifestError when its shape is wrong.

        May hold NaN or Inf where finite values are too large for float32.
        """
        vector: Floats = self.features_of_many(values[np.newaxis])[0]
        return vector

    def features_of_many(self, values: Floats) -> Floats:
        """(n, features) of n examples of one shape, as `features` says of each."""
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Floats = compute_features(self.manifest.preprocessing, values)
        if vectors.shape[1] != len(self.manifest.features):
            raise ManifestError(
                f"an example gives {vectors.shape[1]} features; the model wants "
                f"{len(self.manifest.features)}"
            )
        return vectors

    def prepare(self, vectors: Floats) -> Tensors:
        """One feature vector, or (n, features) where `takes_several`, as the inputs want it."""
        return self.feeder.tensors(vectors if vectors.ndim == 2 else vectors[np.newaxis])

    def run(self, prepared: Tensors) -> NDArray[Any]:
        """Scores of shape (n, labels); raises ModelRunError when the model gives none."""
        count = len(next(iter(prepared.values())))
        wanted = [self._scores.name, *self.feeder.state_outputs]
        try:
            found = self._session.run(self.feeder.with_state(prepared), wanted)
            self.feeder.keep(dict(zip(wanted[1:], found[1:], strict=True)))
        except (ModelLoadError, ManifestError) as error:
            raise ModelRunError(str(error)) from error
        return self._checked(found[0], count)

    def bind(self, vector: Floats) -> Callable[[], NDArray[Any]] | None:
        """A call that runs the model on what `vector` (1, features) holds then, for the hot path.

        It returns what `run` would; the array is good until the next call. None: where inputs are
        made from features by more than a copy, or scores from outputs by more than a look.
        """
        plain = len(self.manifest.inputs) == 1 and not self.manifest.feeds
        spec, raw = self.manifest.inputs[0], self._scores
        if not plain or (spec.dtype, raw.dtype) != ("float32", "float32"):
            return None
        if len(spec.shape) != 2 or spec.shape[1] is None or raw.shape[1:] != (self._width,):
            return None
        found = np.empty((1, self._width), dtype=np.float32)
        run = self._session.bind({spec.name: vector}, raw.name, found)

        def bound() -> NDArray[Any]:
            run()
            return found

        return bound

    def reset(self) -> None:
        """The next example is the first of its sequence."""
        self.feeder.reset()
        if self.manifest.stateful:
            self._session.reset()

    def _checked(self, raw: NDArray[Any], count: int) -> NDArray[Any]:
        name, expected = self._scores.name, (count, self._width)
        if getattr(raw, "dtype", np.dtype(object)).kind not in "fiu":
            had = getattr(raw, "dtype", type(raw).__name__)
            raise ModelRunError(f"{name} has dtype {had}; expected numbers")
        found = scores(raw, self._scores, self._width)
        if found.shape != expected:
            raise ModelRunError(f"{name} has shape {found.shape}; expected {expected}")
        return found


class ModelRunError(ModelLoadError):
    """An example that the model gave no usable answer to."""


def _agreed(manifest: Manifest, session: Session) -> TensorSpec:
    """The output that holds the scores. Raises ModelLoadError where file and manifest differ."""
    given, wanted = [one.name for one in session.inputs], [one.name for one in manifest.inputs]
    if sorted(given) != sorted(wanted):
        raise ModelLoadError(f"the model's inputs are {given}; the manifest says {wanted}")
    declared = {spec.name: spec for spec in manifest.outputs}
    outputs = {spec.name: spec for spec in session.outputs}
    for name in (manifest.scores_output, *Feeder.of(manifest).state_outputs):
        if name not in outputs:
            raise ModelLoadError(
                f"the model's outputs are {list(outputs)}; the manifest wants {name!r}"
            )
    return declared[manifest.scores_output]


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
