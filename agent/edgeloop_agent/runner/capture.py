"""Which examples leave the device for labelling, and what of them.

Invariants: a bounded number a window, whatever the rate: those that a rule names (low confidence,
disagreement with the shadow, outside of the baseline's range) at once, the reservoir's, each of a
window's examples with the same chance, at the window's end; values of private features are
blanked here, before anything is said to the supervisor. What a person asked for goes at once,
beside those, and at most CAPTURE_EXAMPLES_MAX of it.
"""

import base64
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray

from edgeloop_agent.config import CaptureConfig, TelemetryConfig
from edgeloop_agent.runner.inference import Answer
from edgeloop_agent.runner.sampling import Sampler
from edgeloop_protocol.limits import CAPTURE_EXAMPLES_MAX
from edgeloop_protocol.manifest import Binned, Manifest
from edgeloop_protocol.messages import Sample, VersionRef

Send = Callable[[Sample], None]
Bools = NDArray[np.bool_]


class Capture:
    def __init__(
        self,
        slot: str,
        version: VersionRef,
        manifest: Manifest,
        config: CaptureConfig | None,
        telemetry: TelemetryConfig,
        chance: random.Random,
        send: Send,
    ) -> None:
        """`config` None: a random fraction at once, as `telemetry` says."""
        self._slot, self._version, self._config, self._send = slot, version, config, send
        self._sampler = Sampler(telemetry, chance)
        self._chance = chance
        private = frozenset(telemetry.private_features)
        self._private = [n for n, f in enumerate(manifest.features) if f.name in private]
        self._range = _range(manifest, config) if config is not None else None
        self._by_rule = self._seen = self._asked = 0
        self._reservoir: list[Sample] = []

    def ask(self, examples: int) -> None:
        """The next `examples` are sent, each once; what an older request left is not added."""
        self._asked = min(max(self._asked, examples), CAPTURE_EXAMPLES_MAX)

    @property
    def withholds(self) -> bool:
        """A feature is private: nothing that holds values of it may leave, sketches included."""
        return bool(self._private)

    def one(
        self, reference: str, taken_at: float, answer: Answer, shadow: VersionRef | None
    ) -> None:
        self.many(
            [reference],
            taken_at,
            answer.features[np.newaxis],
            np.array([answer.confidence]),
            np.array([answer.compared and answer.shadow_label != answer.label]),
            lambda _: answer,
            shadow,
        )

    def many(
        self,
        references: Sequence[str],
        taken_at: float,
        features: NDArray[Any],
        confidences: NDArray[Any],
        disagrees: Bools | None,
        answer_of: Callable[[int], Answer],
        shadow: VersionRef | None,
    ) -> None:
        """`answer_of`: one row's answer, made only where it is captured."""

        def sample(row: int) -> Sample:
            return self._sample(references[row], taken_at, answer_of(row), shadow)

        asked = min(self._asked, len(references))
        self._asked -= asked
        for row in range(asked):
            self._send(sample(row))
        if self._config is None:
            for row in range(asked, len(references)):
                if self._sampler.take():
                    self._send(sample(row))
            return
        named = self._named(self._config, features, confidences, disagrees)
        for row in np.flatnonzero(named).tolist():
            if row >= asked and self._by_rule < self._config.by_rule_per_window:
                self._by_rule += 1
                self._send(sample(row))
        for row in np.flatnonzero(~named).tolist():
            if row >= asked:
                self._into_reservoir(self._config.reservoir_per_window, row, sample)

    def window_ends(self) -> None:
        for sample in self._reservoir:
            self._send(sample)
        self._reservoir, self._by_rule, self._seen = [], 0, 0
        self._sampler.next_window()

    def _named(
        self,
        config: CaptureConfig,
        features: NDArray[Any],
        confidences: NDArray[Any],
        disagrees: Bools | None,
    ) -> Bools:
        named: Bools = np.zeros(len(features), dtype=np.bool_)
        if config.confidence_below is not None:
            named |= confidences < config.confidence_below
        if config.disagreement and disagrees is not None:
            named |= disagrees
        if self._range is not None:
            low, high = self._range
            named |= ((features < low) | (features > high)).any(axis=1)
        return named

    def _into_reservoir(self, size: int, row: int, sample: Callable[[int], Sample]) -> None:
        """Algorithm R: in the end each example of the window is in it with the same chance."""
        self._seen += 1
        if len(self._reservoir) < size:
            self._reservoir.append(sample(row))
        elif (place := int(self._chance.random() * self._seen)) < size:
            self._reservoir[place] = sample(row)

    def _sample(
        self, reference: str, taken_at: float, answer: Answer, shadow: VersionRef | None
    ) -> Sample:
        values: list[float | None] = answer.features.tolist()
        for place in self._private:
            values[place] = None
        named = answer.shadow_label is not None
        return Sample(
            slot=self._slot,
            version=self._version,
            taken_at=taken_at,
            reference=reference,
            features=tuple(values),
            prediction=answer.label,
            confidence=answer.confidence,
            shadow=shadow if named else None,
            shadow_prediction=answer.shadow_label if shadow is not None else None,
        )


def _range(
    manifest: Manifest, config: CaptureConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Each feature's lowest and highest of the training data, with the margin; None: no rule."""
    if not config.outside_baseline or manifest.baseline is None:
        return None
    ends = np.array([_ends(binned) for binned in manifest.baseline.features])
    margin = config.outside_margin * (ends[:, 1] - ends[:, 0])
    return ends[:, 0] - margin, ends[:, 1] + margin


def _ends(binned: Binned) -> tuple[float, float]:
    """Without bounds where the baseline has no sketch: its edges are quantiles, not its ends."""
    if not binned.sketch:
        return -np.inf, np.inf
    sketch = kll_floats_sketch.deserialize(base64.b64decode(binned.sketch))
    return float(sketch.get_min_value()), float(sketch.get_max_value())
