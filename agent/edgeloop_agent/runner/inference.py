"""One example through the version that answers and, if there is one, the version in shadow.

Invariants: NaN or Inf in the scores is never an answer, and in the features never a question; the
shadow's failures never touch the answer; versions are compared by the label's name, because their
label lists may differ.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
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

    def run(self, vector: Floats) -> tuple[NDArray[Any], float]:
        prepared = self.model.prepare(vector)
        began = time.perf_counter_ns()
        scores = self.model.run(prepared)
        latency_us = (time.perf_counter_ns() - began) / 1000.0
        self._latencies_us.append(latency_us)
        return scores, latency_us

    def p95_us(self) -> float | None:
        return float(np.percentile(self._latencies_us, 95)) if self._latencies_us else None


class Inference:
    def __init__(self, model: Model, shadow: Model | None) -> None:
        self.answering = Timed(model)
        self.shadow: Timed | None = None
        self._shadow_labels: dict[int, int | None] = {}
        if shadow is not None:
            own = {name: index for index, name in enumerate(model.manifest.labels)}
            self.shadow = Timed(shadow)
            self._shadow_labels = {
                index: own.get(name) for index, name in enumerate(shadow.manifest.labels)
            }

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
            return Answer(vector, label, confidence, latency_us)
        compared, shadow_label = self._in_shadow(values)
        return Answer(vector, label, confidence, latency_us, compared, shadow_label)

    def _in_shadow(self, values: Floats) -> tuple[bool, int | None]:
        assert self.shadow is not None
        try:
            scores, _ = self.shadow.run(self.shadow.model.features(values))
        except Exception:  # whatever it is, it is the shadow's
            return False, None
        if not np.isfinite(scores).all():
            return False, None
        return True, self._shadow_labels[int(scores[0].argmax())]
