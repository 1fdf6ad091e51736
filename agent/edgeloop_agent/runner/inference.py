"""Examples through the version that answers and, if there is one, the version in shadow.

Invariants: NaN or Inf in the scores is never an answer, and in the features never a question; the
shadow's failures never touch the answer; versions are compared by the label's name, because their
label lists may differ; `answer_many` gives what `answer` gives of each example alone.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.constant_output import Sameness
from edgeloop_agent.runner.model import Model
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.preprocessing import Floats
from edgeloop_protocol.scoring import answers

LATENCIES_KEPT: Final = 512
"""A p95 is taken over this many latest inferences."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`shadow_label` is an index into the answering version's labels; None: not among them."""

    features: Floats
    label: int
    confidence: float
    latency_us: float
    compared: bool = False
    shadow_label: int | None = None
    scores: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Of n examples, all answered, in arrays of n rows; None: nothing runs in shadow.

    `shadow_labels` are -1 where the shadow's label is not among the answering version's.
    """

    features: Floats
    scores: NDArray[Any]
    labels: NDArray[np.int64]
    confidences: Floats
    latencies_us: list[float]
    shadow_labels: NDArray[np.int64] | None = None

    def answer(self, row: int) -> Answer:
        shadow_label = None if self.shadow_labels is None else int(self.shadow_labels[row])
        return Answer(
            self.features[row],
            int(self.labels[row]),
            float(self.confidences[row]),
            self.latencies_us[row],
            self.shadow_labels is not None,
            None if shadow_label == -1 else shadow_label,
            self.scores[row],
        )


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """`by_source`: the example is to blame, not the model."""

    problem: str
    by_source: bool = False
    nonfinite: bool = False
    latency_us: float | None = None


class Timed:
    """A model with the latencies of its latest inferences, in microseconds."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._latencies_us: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._vector = np.zeros((1, len(model.manifest.features)), dtype=np.float32)
        self._bound = model.bind(self._vector)

    def run(self, vector: Floats) -> tuple[NDArray[Any], float]:
        prepared = self.model.prepare(vector)
        began = time.perf_counter_ns()
        scores = self.model.run(prepared)
        latency_us = (time.perf_counter_ns() - began) / 1000.0
        self._latencies_us.append(latency_us)
        return scores, latency_us

    def run_many(self, vectors: Floats, at_once: bool) -> tuple[NDArray[Any], list[float]] | None:
        """Scores (n, labels) and each one's latency; `at_once`: in one run, where the model can.

        None: this model is only run by `run`.
        """
        if at_once and len(vectors) > 1 and self.model.takes_several:
            scores, latencies_us = self._at_once(vectors)
        elif self._bound is not None:
            scores, latencies_us = self._in_turn(vectors, self._bound)
        else:
            return None
        self._latencies_us.extend(latencies_us)
        return scores, latencies_us

    def p95_us(self) -> float | None:
        return float(np.percentile(self._latencies_us, 95)) if self._latencies_us else None

    def _at_once(self, vectors: Floats) -> tuple[NDArray[Any], list[float]]:
        prepared = self.model.prepare(vectors)
        began = time.perf_counter_ns()
        scores = self.model.run(prepared)
        each_us = (time.perf_counter_ns() - began) / 1000.0 / len(vectors)
        return scores, [each_us] * len(vectors)

    def _in_turn(
        self, vectors: Floats, run: Callable[[], NDArray[Any]]
    ) -> tuple[NDArray[Any], list[float]]:
        """The hot path: per example a copy in, a run, a copy out and one look at the clock."""
        held, clock = self._vector[0], time.perf_counter_ns
        scores = np.empty((len(vectors), len(self.model.manifest.labels)), dtype=np.float32)
        times = [clock()]
        for row, vector in enumerate(vectors):
            held[:] = vector
            scores[row] = run()[0]
            times.append(clock())
        return scores, [(end - begin) / 1000.0 for begin, end in pairwise(times)]


class Inference:
    def __init__(self, model: Model, shadow: Model | None) -> None:
        self.answering = Timed(model)
        self.sameness = Sameness()
        self.shadow: Timed | None = None
        self._shadow_labels: dict[int, int | None] = {}
        if shadow is not None:
            own = {name: index for index, name in enumerate(model.manifest.labels)}
            self.shadow = Timed(shadow)
            self._shadow_labels = {
                index: own.get(name) for index, name in enumerate(shadow.manifest.labels)
            }

    def answer_many(self, values: Sequence[Floats], at_once: bool = False) -> Batch | None:
        """None: at least one of them needs `answer`, or the model has no fast way; nothing has
        changed then. `at_once`: they may be one batch for the model."""
        if self._remembers():
            return None  # what was run cannot be run again
        try:
            vectors = self.answering.model.features_of_many(np.array(values, dtype=np.float32))
            if not np.isfinite(vectors).all():
                return None
            ran = self.answering.run_many(vectors, at_once)
        except (ModelLoadError, ManifestError, ValueError):
            return None
        if ran is None or not np.isfinite(ran[0]).all():
            return None
        labels, confidences = answers(ran[0])
        if self.shadow is None:
            self.sameness.saw_many(vectors, ran[0], None)
            return Batch(vectors, ran[0], labels, confidences, ran[1])
        shadow_labels = self._many_in_shadow(values, at_once)
        if shadow_labels is None:
            return None
        self.sameness.saw_many(vectors, ran[0], shadow_labels)
        return Batch(vectors, ran[0], labels, confidences, ran[1], shadow_labels)

    def reset(self) -> None:
        """The next example is the first of its sequence."""
        self.answering.model.reset()
        if self.shadow is not None:
            self.shadow.model.reset()

    def answer(self, values: Floats) -> Answer | NoAnswer:
        try:
            vector = self.answering.model.features(values)
            if not np.isfinite(vector).all():
                return NoAnswer("values too large: the features hold NaN or Inf", by_source=True)
            scores, latency_us = self.answering.run(vector)
        except (ModelLoadError, ManifestError, ValueError) as error:
            return NoAnswer(str(error))
        if not np.isfinite(scores).all():
            return NoAnswer("the model gave NaN or Inf", nonfinite=True, latency_us=latency_us)
        labels, confidences = answers(scores)
        label, confidence = int(labels[0]), float(confidences[0])
        if self.shadow is None:
            self.sameness.saw(vector, scores[0], None)
            return Answer(vector, label, confidence, latency_us, scores=scores[0])
        compared, shadow_label = self._in_shadow(values)
        seen = None if not compared else -1 if shadow_label is None else shadow_label
        self.sameness.saw(vector, scores[0], seen)
        return Answer(vector, label, confidence, latency_us, compared, shadow_label, scores[0])

    def _remembers(self) -> bool:
        shadow = self.shadow is not None and self.shadow.model.manifest.stateful
        return self.answering.model.manifest.stateful or shadow

    def _many_in_shadow(self, values: Sequence[Floats], at_once: bool) -> NDArray[np.int64] | None:
        assert self.shadow is not None
        try:
            vectors = self.shadow.model.features_of_many(np.array(values, dtype=np.float32))
            ran = self.shadow.run_many(vectors, at_once)
        except Exception:  # whatever it is, it is the shadow's
            return None
        if ran is None or not np.isfinite(ran[0]).all():
            return None
        named = [self._shadow_labels[index] for index in ran[0].argmax(axis=1).tolist()]
        return np.array([-1 if label is None else label for label in named], dtype=np.int64)

    def _in_shadow(self, values: Floats) -> tuple[bool, int | None]:
        assert self.shadow is not None
        try:
            scores, _ = self.shadow.run(self.shadow.model.features(values))
        except Exception:  # whatever it is, it is the shadow's
            return False, None
        if not np.isfinite(scores).all():
            return False, None
        return True, self._shadow_labels[int(scores[0].argmax())]
