"""What one version answers to each example of one scene: real inference, done once, then counted.

Invariants: every row is what the agent's own runner code answers to that example alone; what
`count` gives are whole numbers, however often and in whichever order rows are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.runner.inference import Answer, Inference
from edgeloop_protocol.manifest import Binned, Manifest
from edgeloop_simulators.datasets.windows import Floats, Window
from edgeloop_simulators.virtual.spec.behaviour import Answers

Rows = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class AnswerTable:
    """Arrays of n rows, one an example. Where `answered` is false, prediction, confidence, features
    and bins are zero and mean nothing; `nonfinite` says whether the model was to blame."""

    references: tuple[str, ...]
    answered: Bools
    nonfinite: Bools
    right: Bools
    predictions: Rows
    confidences: Floats
    features: Floats
    bins: NDArray[np.int64]
    """(n, columns): for each feature, and last for the confidence, its bin in one row of all bins
    of all columns; no columns where the manifest has no baseline."""
    bin_counts: tuple[int, ...]
    labels: int
    answered_rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answered_rows", np.flatnonzero(self.answered))

    def __len__(self) -> int:
        return len(self.references)

    def count(self, rows: Rows, disagrees: Bools | None = None) -> Answers:
        """What a window says of these rows. `disagrees` (n,): where the version in shadow gives
        another answer; None without one."""
        answered = rows[self.answered[rows]]
        nonfinite = int(self.nonfinite[rows].sum())
        bins = np.bincount(self.bins[answered].ravel(), minlength=sum(self.bin_counts)).tolist()
        histograms, start = [], 0
        for width in self.bin_counts:
            histograms.append(tuple(bins[start : start + width]))
            start += width
        predictions = np.bincount(self.predictions[answered], minlength=self.labels)
        return Answers(
            count=len(answered),
            right=int(self.right[answered].sum()),
            predictions=tuple(predictions.tolist()),
            confidence=histograms[-1] if histograms else (),
            features=tuple(histograms[:-1]),
            nonfinite=nonfinite,
            errors=len(rows) - len(answered) - nonfinite,
            disagreements=0 if disagrees is None else int(disagrees[answered].sum()),
        )

    def disagrees_with(
        self, shadow: "AnswerTable", labels: Sequence[str], shadow_labels: Sequence[str]
    ) -> Bools:
        """Where both answered, and differently by the label's name; of the same scene."""
        own = {name: index for index, name in enumerate(labels)}
        mapped = np.array([own.get(name, -1) for name in shadow_labels], dtype=np.intp)
        differ: Bools = mapped[shadow.predictions] != self.predictions
        return differ & self.answered & shadow.answered


def make_table(
    windows: Sequence[Window], values: Sequence[Floats], inference: Inference, manifest: Manifest
) -> AnswerTable:
    """`values`: what the device sees of each window; `inference`: the version alone."""
    n, width = len(windows), len(manifest.features)
    answered, nonfinite, right = (np.zeros(n, dtype=bool) for _ in range(3))
    predictions, confidences = np.zeros(n, dtype=np.intp), np.zeros(n, dtype=np.float32)
    features = np.zeros((n, width), dtype=np.float32)
    for row, (window, seen) in enumerate(zip(windows, values, strict=True)):
        answer = inference.answer(seen)
        if isinstance(answer, Answer):
            answered[row] = True
            right[row] = manifest.labels[answer.label] == window.label
            predictions[row], confidences[row] = answer.label, answer.confidence
            features[row] = answer.features
        else:
            nonfinite[row] = answer.nonfinite
    bins, bin_counts = _bins(features, confidences, manifest)
    return AnswerTable(
        references=tuple(window.reference for window in windows),
        answered=answered,
        nonfinite=nonfinite,
        right=right,
        predictions=predictions,
        confidences=confidences,
        features=features,
        bins=bins,
        bin_counts=bin_counts,
        labels=len(manifest.labels),
    )


def _bins(
    features: Floats, confidences: Floats, manifest: Manifest
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """As edgeloop_agent.runner.window bins them."""
    baseline = manifest.baseline
    if baseline is None:
        return np.zeros((len(features), 0), dtype=np.int64), ()
    columns: list[tuple[Binned, NDArray[Any]]] = [
        *zip(baseline.features, features.T, strict=True),
        (baseline.confidence, confidences),
    ]
    bins, start, widths = [], 0, []
    for binned, column in columns:
        places = np.searchsorted(np.asarray(binned.edges, dtype=np.float64), column, side="right")
        bins.append(places + start)
        start += len(binned.edges) + 1
        widths.append(len(binned.edges) + 1)
    return np.stack(bins, axis=1).astype(np.int64), tuple(widths)
