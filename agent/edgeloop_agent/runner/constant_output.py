"""Does a version answer the same whatever it is asked? Before it serves, and while it serves.

Invariants: constant means the same bits, so that a model that is merely sure is not; a version that
varies costs one comparison, once; what it is asked in the self-test reaches beyond what it was
trained on, so that a decision tree must leave its leaf.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.preprocessing import Floats

PROBED_FEATURES_MAX: Final = 64
"""Beyond so many, features are swept in this many groups: a self-test has to end."""
SHADOW_SHARE_MIN: Final = 0.2
"""The old version varies if both its first label and all others make more than this share."""

Ask = Callable[[Floats], NDArray[np.generic]]


def constant_output(manifest: Manifest, ask: Ask) -> str | None:
    """None when two inputs get different scores, else what is wrong, in words.

    Judged only where the manifest says, by golden inputs or a baseline, what inputs look like, and
    where the same bits mean something: quantised scores of a rare class are all alike, and a model
    with a state may need a sequence before it says anything (a wake word's is both).
    """
    if manifest.stateful or _are_scores_quantised(manifest):
        return None
    first: bytes | None = None
    asked = 0
    for vector in _questions(manifest):
        try:
            given = ask(vector)
        except (ModelLoadError, ValueError):
            return None  # an error is no constant; whether it matters, others judge
        if not np.isfinite(given).all():
            return None
        scores = given.tobytes()
        if first is None:
            first = scores
        elif scores != first:
            return None
        asked += 1
    if asked < 2:
        return None
    return f"constant output: {asked} different inputs get the very same scores"


def _are_scores_quantised(manifest: Manifest) -> bool:
    scores = next(out for out in manifest.outputs if out.name == manifest.scores_output)
    return not scores.dtype.startswith("float")


def _questions(manifest: Manifest) -> Iterator[Floats]:
    """Golden inputs as they are; then each feature far below and far above all that is known."""
    golden = manifest.golden.inputs if manifest.golden else ()
    known = [np.asarray(values, dtype=np.float64) for values in golden]
    yield from (values.astype(np.float32) for values in known)
    low, high = _range(manifest, known)
    if low is None or high is None:
        return
    reach = np.maximum(high - low, 1.0)
    middle, below, above = (low + high) / 2, low - reach, high + reach
    yield from (corner.astype(np.float32) for corner in (middle, below, above))
    groups = np.array_split(np.arange(len(middle)), min(len(middle), PROBED_FEATURES_MAX))
    for group in groups:
        for far in (below, above):
            vector = middle.copy()
            vector[group] = far[group]
            yield vector.astype(np.float32)


def _range(
    manifest: Manifest, known: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Of each feature, over golden inputs and the baseline's edges; None: nothing is known."""
    lows, highs = list(known), list(known)
    if manifest.baseline and all(binned.edges for binned in manifest.baseline.features):
        lows.append(np.array([binned.edges[0] for binned in manifest.baseline.features]))
        highs.append(np.array([binned.edges[-1] for binned in manifest.baseline.features]))
    if not lows:
        return None, None
    return np.min(lows, axis=0), np.max(highs, axis=0)


class Sameness:
    """Of a serving version's answers, beside those of the version in shadow.

    `same_answers`: to how many inputs unlike the first the scores were the first ones, bit for bit,
    and the first itself; 0 once they differed.
    """

    def __init__(self) -> None:
        self._vector: bytes | None = None
        self._scores: bytes | None = None
        self._varies = False
        self._count = 0
        self._shadow_first: int | None = None
        self._shadow_same = self._shadow_other = 0

    @property
    def same_answers(self) -> int:
        return 0 if self._varies else self._count

    @property
    def shadow_varied(self) -> bool:
        """Its labels differed, and each side of that was seen often."""
        rarer = min(self._shadow_same, self._shadow_other)
        return rarer > SHADOW_SHARE_MIN * (self._shadow_same + self._shadow_other)

    def saw_many(
        self,
        vectors: Floats,
        scores: NDArray[np.generic],
        shadow_labels: NDArray[np.int64] | None,
    ) -> None:
        """Of n examples, in arrays of n rows."""
        for row, vector in enumerate(vectors):
            if self._varies:
                return
            label = None if shadow_labels is None else int(shadow_labels[row])
            self.saw(vector, scores[row], label)

    def saw(self, vector: Floats, scores: NDArray[np.generic], shadow_label: int | None) -> None:
        if self._varies:
            return
        bits = scores.tobytes()
        if self._scores is None:
            self._vector, self._scores, self._count = vector.tobytes(), bits, 1
        elif bits != self._scores:
            self._varies = True
            return
        elif vector.tobytes() != self._vector:
            self._count += 1
        if shadow_label is None:
            return
        if self._shadow_first is None:
            self._shadow_first = shadow_label
        if shadow_label == self._shadow_first:
            self._shadow_same += 1
        else:
            self._shadow_other += 1
