"""Real models on real recordings, and what they answer to long streams of them.

Small networks are trained on one half of the people of the smartwatch recordings (right wrists);
the other people's recordings are the devices' world. A *wearer* is one person's wrist whose sensors
have gains and offsets of their own. Each wearer's stream plays its windows in blocks of one
exercise, as life does; every model answers every example of it once, and the answers are kept as
running sums, so that what a device did between two moments is a difference.

Invariants: everything follows from the seed; no stream shares a person with the training data.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgeloop_protocol.manifest import Preprocessing
from edgeloop_protocol.preprocessing import features
from edgeloop_simulators.datasets.watch import (
    CHANNELS,
    RIGHT,
    Recording,
    find_file,
    read_recordings,
)
from edgeloop_simulators.errors import DatasetError

Floats = NDArray[np.float32]

ROWS: Final = 100
HOP_ROWS: Final = 50
STATISTICS: Final = ("mean", "std", "min", "max", "mean_abs_diff")
PREPROCESSING: Final = Preprocessing(
    kind="window_statistics", rows=ROWS, channels=CHANNELS, statistics=STATISTICS
)
STREAM: Final = 1024
"""Examples of a wearer's stream before it begins again."""
BLOCK: Final = 8
"""Consecutive examples of one exercise."""
LABELLED_EVERY: Final = 10
"""Every tenth example comes to be labelled."""
WEAKER_BY: Final = (0.06, 0.08, 0.10, 0.12, 0.14, 0.17)
"""How much less often the weaker versions are right on all wearers together."""
AS_GOOD: Final = 0.01
"""A retrained version is as good as the old one if it is right at most so much less often, on
either wrist."""
TRIES_MAX: Final = 40


@dataclass(frozen=True)
class Streams:
    """Running sums over each wearer's stream: [wearer, example, ...], of one version.

    `answers`: confidence, then a count for each label. `pairs`: examples on which it differs from
    the old version; then of labelled examples those that only the old one had right, only this
    one, both, neither. `wrongs`: the same with this version's labels permuted.
    """

    answers: NDArray[np.float32]
    pairs: NDArray[np.float32]
    wrongs: NDArray[np.float32]
    permuted: NDArray[np.float32]
    """`answers` with the labels permuted."""

    def drop(self, wearers: NDArray[np.int64]) -> float:
        """How much less often than the old version it is right on those wearers' streams."""
        whole = self.pairs[wearers, STREAM, 1:].sum(axis=0)
        return float((whole[0] - whole[1]) / whole.sum())


@dataclass(frozen=True)
class World:
    """`right` and `left`: rows of wearers of the right wrist, and of the same on the left."""

    old: Streams
    good: Sequence[Streams]
    weaker: Sequence[Streams]
    right: NDArray[np.int64]
    left: NDArray[np.int64]
    accuracy_old: float
    accuracy_good: Sequence[float]
    accuracy_weaker: Sequence[float]


def make_world(
    wearers: int = 64, good: int = 3, weaker: int = len(WEAKER_BY), seed: int = 0
) -> World:
    """`wearers` of each wrist. Takes some seconds. Raises DatasetError."""
    rng = np.random.default_rng(seed)
    recordings = read_recordings(find_file())
    people = sorted({one.person for one in recordings})
    names = sorted({one.exercise for one in recordings})
    teaching = people[: len(people) // 2]
    x, y = _windows([r for r in recordings if r.person in teaching and r.wrist == RIGHT], names)
    chosen = [
        _Wearer.draw(recordings, people[len(people) // 2 :], names, rng) for _ in range(wearers)
    ]
    examples = np.concatenate([one.right for one in chosen] + [one.left for one in chosen])
    truths = np.concatenate(
        [one.truth_right for one in chosen] + [one.truth_left for one in chosen]
    )
    right_rows = slice(0, wearers * STREAM)
    old = _fit(x, y, rng)
    answers = _Answers(examples, truths, len(names))
    old_says = answers.of(old)
    reference = old_says.accuracy(right_rows)
    goods = _as_good(old_says, (answers.of(_fit(x, y, rng)) for _ in range(TRIES_MAX)), good)
    some = _Answers(examples[right_rows], truths[right_rows], len(names))
    weak = [
        answers.of(_weaker(_fit(x, y, rng), rng, some, reference - drop))
        for drop in WEAKER_BY[:weaker]
    ]
    return World(
        old=old_says.streams(old_says),
        good=[one.streams(old_says) for one in goods],
        weaker=[one.streams(old_says) for one in weak],
        right=np.arange(wearers),
        left=np.arange(wearers, 2 * wearers),
        accuracy_old=reference,
        accuracy_good=[one.accuracy(right_rows) for one in goods],
        accuracy_weaker=[one.accuracy(right_rows) for one in weak],
    )


def _windows(recordings: Sequence[Recording], names: Sequence[str]) -> tuple[Floats, NDArray[Any]]:
    cut, labels = [], []
    for one in recordings:
        for start in range(0, len(one.rows) - ROWS + 1, HOP_ROWS):
            cut.append(one.rows[start : start + ROWS])
            labels.append(names.index(one.exercise))
    return features(PREPROCESSING, np.stack(cut)).astype(np.float32), np.array(labels)


@dataclass(frozen=True)
class _Wearer:
    right: Floats
    truth_right: NDArray[Any]
    left: Floats
    truth_left: NDArray[Any]

    @classmethod
    def draw(
        cls,
        recordings: Sequence[Recording],
        people: Sequence[int],
        names: Sequence[str],
        rng: np.random.Generator,
    ) -> "_Wearer":
        person = int(rng.choice(people))
        gain = rng.normal(1.0, 0.05, size=(len(CHANNELS),)).astype(np.float32)
        found = []
        for wrist in (RIGHT, 1 - RIGHT):
            theirs = [
                Recording(r.number, r.person, r.wrist, r.exercise, r.rows * gain)
                for r in recordings
                if r.person == person and r.wrist == wrist
            ]
            x, y = _windows(theirs, names)
            order = _in_blocks(y, rng)
            found += [x[order], y[order]]
        return cls(*found)


def _in_blocks(y: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """STREAM rows: blocks of consecutive windows of one exercise, in a drawn order."""
    blocks = [
        rows[start : start + BLOCK]
        for label in np.unique(y)
        for rows in [np.flatnonzero(y == label)]
        for start in range(0, len(rows), BLOCK)
    ]
    order: list[int] = []
    while len(order) < STREAM:
        for number in rng.permutation(len(blocks)):
            order += blocks[number].tolist()
    return np.array(order[:STREAM])


def _fit(x: Floats, y: NDArray[Any], rng: np.random.Generator, hidden: int = 32) -> Any:
    """On a drawn nine tenths of the windows, as a retraining sees other data than the last one."""
    kept = rng.permutation(len(x))[: len(x) * 9 // 10]
    model = make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (hidden,),
            alpha=0.1,
            max_iter=25,
            learning_rate_init=2e-3,
            batch_size=64,
            random_state=int(rng.integers(1 << 31)),
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[kept], y[kept])
    return model


def _as_good(old: "_Said", candidates: Iterator["_Said"], wanted: int) -> list["_Said"]:
    """The first candidates that are as good as the old version on each wrist."""
    wrists = (slice(0, len(old.truths) // 2), slice(len(old.truths) // 2, None))
    found: list[_Said] = []
    for one in candidates:
        if all(one.accuracy(rows) >= old.accuracy(rows) - AS_GOOD for rows in wrists):
            found.append(one)
        if len(found) == wanted:
            return found
    raise DatasetError(f"{TRIES_MAX} retrainings gave {len(found)} versions as good as the old one")


def _weaker(model: Any, rng: np.random.Generator, answers: "_Answers", target: float) -> Any:
    """The model with its first layer blurred until its accuracy is `target`: as confident as
    before, and wrong more often, as one that was converted or quantised badly."""
    network = model[-1]
    whole = network.coefs_[0].copy()
    noise = rng.normal(size=whole.shape) * whole.std()
    low, high = 0.0, 4.0
    for _ in range(8):
        middle = (low + high) / 2
        network.coefs_[0] = whole + middle * noise
        if answers.of(model).accuracy(slice(None)) > target:
            low = middle
        else:
            high = middle
    return model


@dataclass(frozen=True)
class _Said:
    labels: NDArray[np.int64]
    confidence: Floats
    truths: NDArray[np.int64]
    width: int

    def accuracy(self, rows: slice) -> float:
        return float((self.labels[rows] == self.truths[rows]).mean())

    def streams(self, old: "_Said") -> Streams:
        wrong = (self.labels + 1) % self.width
        return Streams(
            answers=self._answers(self.labels),
            pairs=self._pairs(self.labels, old),
            wrongs=self._pairs(wrong, old),
            permuted=self._answers(wrong),
        )

    def _answers(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        return _running(self.confidence, *(labels == label for label in range(self.width)))

    def _pairs(self, labels: NDArray[np.int64], old: "_Said") -> NDArray[np.float32]:
        labelled = np.arange(len(labels)) % LABELLED_EVERY == 0
        mine, theirs = labels == self.truths, old.labels == self.truths
        return _running(
            labels != old.labels,
            labelled & theirs & ~mine,
            labelled & mine & ~theirs,
            labelled & mine & theirs,
            labelled & ~mine & ~theirs,
        )


def _running(*columns: NDArray[Any]) -> NDArray[np.float32]:
    """[wearer, STREAM + 1, column]; the last row is the sum of the whole stream."""
    stacked = np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=-1)
    sums = stacked.reshape(-1, STREAM, len(columns)).cumsum(axis=1, dtype=np.float32)
    return np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)


@dataclass(frozen=True)
class _Answers:
    examples: Floats
    truths: NDArray[np.int64]
    width: int

    def of(self, model: Any) -> _Said:
        scores = model.predict_proba(self.examples)
        return _Said(
            scores.argmax(axis=1), scores.max(axis=1).astype(np.float32), self.truths, self.width
        )


def between(
    sums: NDArray[np.float32],
    wearers: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What each device's stream gave from its example `start` to before `end`."""
    return _until(sums, wearers, end) - _until(sums, wearers, start)


def _until(
    sums: NDArray[np.float32], wearers: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.float64]:
    rounds, rest = np.divmod(end, STREAM)
    whole: NDArray[np.float64] = sums[wearers, STREAM] * rounds[:, None].astype(np.float64)
    return whole + sums[wearers, rest]
