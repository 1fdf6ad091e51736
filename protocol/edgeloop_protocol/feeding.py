"""Feature vectors become what a model's inputs are given, and its raw output becomes scores.

Imports numpy, like `preprocessing`: the supervisor never imports it. Invariants: publishing and
devices feed a model by this code, so that golden outputs mean the same on both; a state tensor
starts as zeros and is what the model itself gave for the example before.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.manifest import Feed, Manifest, Quantisation, TensorSpec
from edgeloop_protocol.preprocessing import Floats

Tensors = dict[str, NDArray[Any]]

BINARY_LABELS: Final = 2
"""A model of two labels may give one score: how likely the second is."""


class Feeder:
    """Of one model; holds its state tensors."""

    def __init__(
        self, inputs: Sequence[TensorSpec], feeds: Sequence[Feed], features: Sequence[str]
    ) -> None:
        specs = {spec.name: spec for spec in inputs}
        places = {name: place for place, name in enumerate(features)}
        self._constants: dict[str, tuple[TensorSpec, float]] = {}
        self._states: dict[str, str] = {}
        self._features: list[tuple[TensorSpec, NDArray[np.intp] | None]] = []
        if not feeds:
            self._features.append((inputs[0], None))
        for feed in feeds:
            spec = specs[feed.input]
            if feed.state_of is not None:
                self._states[feed.input] = feed.state_of
            elif feed.constant is not None:
                self._constants[feed.input] = (spec, feed.constant)
            else:
                columns = np.array([places[name] for name in feed.features], dtype=np.intp)
                self._features.append((spec, columns))
        self._zeros = {name: _zeros(specs[name]) for name in self._states}
        self._now: Tensors = dict(self._zeros)
        self.state_outputs: tuple[str, ...] = tuple(self._states.values())
        self.takes_several = not self._states and all(spec.shape[:1] == (None,) for spec in inputs)
        """Several examples at once give what each gives alone."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Feeder":
        return cls(manifest.inputs, manifest.feeds, [f.name for f in manifest.features])

    def tensors(self, vectors: Floats) -> Tensors:
        """For (n, features); without the state. Raises ManifestError when an input is too small."""
        count = len(vectors)
        made: Tensors = {}
        for spec, columns in self._features:
            chosen = vectors if columns is None else vectors[:, columns]
            made[spec.name] = _shaped(quantised(chosen, spec), spec, count)
        for name, (spec, number) in self._constants.items():
            shape = (count, *(1 if size is None else size for size in spec.shape[1:]))
            made[name] = quantised(np.full(shape, number, dtype=np.float32), spec)
        return made

    def with_state(self, tensors: Tensors) -> Tensors:
        return {**tensors, **self._now} if self._now else tensors

    def keep(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """What the model gave becomes its state. Raises ManifestError when it has another form."""
        fresh: Tensors = {}
        for name, source in self._states.items():
            state = np.asarray(outputs[source])
            if state.shape != self._zeros[name].shape:
                raise ManifestError(
                    f"state {source} has shape {state.shape}; {name} takes "
                    f"{self._zeros[name].shape}"
                )
            fresh[name] = state
        self._now = fresh

    def reset(self) -> None:
        self._now = dict(self._zeros)


def quantised(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Real values in the tensor's type; what it cannot hold becomes the nearest that it can."""
    dtype = np.dtype(spec.dtype)
    if spec.quantisation is None:
        return values.astype(dtype)
    held = np.iinfo(dtype)
    scaled = np.rint(values / spec.quantisation.scale) + spec.quantisation.zero_point
    whole: NDArray[Any] = np.clip(scaled, held.min, held.max).astype(dtype)
    return whole


def real(values: NDArray[Any], quantisation: Quantisation | None) -> NDArray[Any]:
    if quantisation is None:
        return values
    shifted = values.astype(np.float32) - np.float32(quantisation.zero_point)
    found: NDArray[Any] = shifted * np.float32(quantisation.scale)
    return found


def scores(raw: NDArray[Any], spec: TensorSpec, labels: int) -> NDArray[Any]:
    """One score a label, from what the output holds; anything else is returned as it came."""
    return per_label(real(raw, spec.quantisation), labels)


def per_label(found: NDArray[Any], labels: int) -> NDArray[Any]:
    """Of a model of two labels that gives one score: both."""
    if labels == BINARY_LABELS and found.ndim == 2 and found.shape[1] == 1:
        return np.concatenate([1 - found, found], axis=1)
    return found


def _shaped(values: NDArray[Any], spec: TensorSpec, count: int) -> NDArray[Any]:
    inner = spec.shape[1:]
    shape = tuple(-1 if size is None else size for size in inner)
    try:
        return values.reshape((count, *shape))
    except ValueError as error:
        raise ManifestError(
            f"{values.shape[1]} features do not fill {spec.name} of shape {spec.shape}"
        ) from error


def _zeros(spec: TensorSpec) -> NDArray[Any]:
    shape = tuple(1 if size is None else size for size in spec.shape)
    zero = 0 if spec.quantisation is None else spec.quantisation.zero_point
    return np.full(shape, zero, dtype=np.dtype(spec.dtype))
