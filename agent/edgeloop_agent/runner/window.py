"""One telemetry window: what was seen and answered, as counts over the manifest's baseline bins.

Invariants: memory is bounded (rows are kept in arrays of FOLD_BYTES_MAX and folded into counts when
those are full, and at the window's end: by column, never by example); a value x lies in bin
`searchsorted(edges, x, side="right")`; an example is counted in exactly one of `count`, `errors`
and `nonfinite`.
"""

import base64
from typing import Final

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray

from edgeloop_protocol.limits import KIB, MIB
from edgeloop_protocol.manifest import Binned, Manifest
from edgeloop_protocol.messages import Comparison, Sketches, VersionRef, WindowSummary
from edgeloop_protocol.preprocessing import Floats

FOLD_EXAMPLES: Final = 4096
FOLD_EXAMPLES_MIN: Final = 64
FOLD_BYTES_MAX: Final = 1 * MIB
KLL_K: Final = 200
SKETCHES_MAX_BYTES: Final = 80 * KIB
"""As base64: a window with more could not travel in one message; it goes without."""


class SketchSet:
    """KLL sketches of each feature and of the confidence, over several windows."""

    def __init__(self, features: int) -> None:
        self._features = [kll_floats_sketch(KLL_K) for _ in range(features)]
        self._confidence = kll_floats_sketch(KLL_K)

    def update(self, features: Floats, confidence: Floats) -> None:
        for column, sketch in enumerate(self._features):
            sketch.update(np.ascontiguousarray(features[:, column]))
        self._confidence.update(confidence)

    def serialise(self) -> Sketches | None:
        """None when empty or larger than SKETCHES_MAX_BYTES."""
        if self._confidence.is_empty():
            return None
        texts = [_base64(sketch) for sketch in (*self._features, self._confidence)]
        if sum(map(len, texts)) > SKETCHES_MAX_BYTES:
            return None
        return Sketches(count=self._confidence.n, features=tuple(texts[:-1]), confidence=texts[-1])


class Window:
    """Accumulates one window of one version; `summary` closes it."""

    def __init__(self, manifest: Manifest, sketches: SketchSet | None, started_at: float) -> None:
        baseline = manifest.baseline
        self._edges = [_edges(binned) for binned in baseline.features] if baseline else []
        self._confidence_edges = _edges(baseline.confidence) if baseline else None
        self._histograms = [np.zeros(len(edges) + 1, dtype=np.int64) for edges in self._edges]
        confidence_bins = 0 if self._confidence_edges is None else len(self._confidence_edges) + 1
        self._confidence = np.zeros(confidence_bins, dtype=np.int64)
        self._predictions = np.zeros(len(manifest.labels), dtype=np.int64)
        self._sketches = sketches
        self._started_at = started_at
        width = len(manifest.features)
        capacity = min(FOLD_EXAMPLES, max(FOLD_EXAMPLES_MIN, FOLD_BYTES_MAX // (4 * width)))
        self._rows = np.empty((capacity, width), dtype=np.float32)
        self._confidences = np.empty(capacity, dtype=np.float32)
        self._labels = np.empty(capacity, dtype=np.int64)
        self._held = 0
        self._latencies_us: list[float] = []
        self._counts = {"count": 0, "errors": 0, "nonfinite": 0, "compared": 0, "disagreed": 0}

    def answered(self, features: Floats, label: int, confidence: float) -> None:
        self._counts["count"] += 1
        self._rows[self._held] = features
        self._labels[self._held] = label
        self._confidences[self._held] = confidence
        self._held += 1
        if self._held >= len(self._rows):
            self._fold()

    def answered_many(
        self, features: Floats, labels: NDArray[np.int64], confidences: Floats
    ) -> None:
        """As `answered` of each row."""
        self._counts["count"] += len(features)
        start = 0
        while start < len(features):
            taken = min(len(features) - start, len(self._rows) - self._held)
            here, there = slice(self._held, self._held + taken), slice(start, start + taken)
            self._rows[here] = features[there]
            self._labels[here] = labels[there]
            self._confidences[here] = confidences[there]
            self._held += taken
            start += taken
            if self._held >= len(self._rows):
                self._fold()

    def timed(self, latency_us: float) -> None:
        """Of every inference that gave scores; beyond FOLD_EXAMPLES the earliest stand for all."""
        if len(self._latencies_us) < FOLD_EXAMPLES:
            self._latencies_us.append(latency_us)

    def timed_many(self, latencies_us: list[float]) -> None:
        room = FOLD_EXAMPLES - len(self._latencies_us)
        if room > 0:
            self._latencies_us += latencies_us[:room]

    def compared_many(self, count: int, disagreed: int) -> None:
        self._counts["compared"] += count
        self._counts["disagreed"] += disagreed

    def compared(self, agreed: bool) -> None:
        self._counts["compared"] += 1
        self._counts["disagreed"] += int(not agreed)

    def errored(self) -> None:
        self._counts["errors"] += 1

    def gave_nonfinite(self) -> None:
        self._counts["nonfinite"] += 1

    def summary(
        self,
        slot: str,
        version: VersionRef,
        ended_at: float,
        memory_bytes: int,
        shadow: VersionRef | None,
        sketches: Sketches | None,
    ) -> WindowSummary:
        self._fold()
        latencies = self._latencies_us or [0.0]
        p50, p95 = np.percentile(latencies, (50, 95))
        comparison = None
        if shadow is not None and self._counts["compared"]:
            comparison = Comparison(
                shadow=shadow,
                count=self._counts["compared"],
                disagreements=self._counts["disagreed"],
            )
        return WindowSummary(
            slot=slot,
            version=version,
            started_at=self._started_at,
            ended_at=ended_at,
            count=self._counts["count"],
            errors=self._counts["errors"],
            nonfinite=self._counts["nonfinite"],
            latency_p50_us=float(p50),
            latency_p95_us=float(p95),
            memory_bytes=memory_bytes,
            predictions=tuple(self._predictions.tolist()),
            confidence=tuple(self._confidence.tolist()),
            features=tuple(tuple(counts.tolist()) for counts in self._histograms),
            sketches=sketches,
            comparison=comparison,
        )

    def _fold(self) -> None:
        if not self._held:
            return
        rows, confidences = self._rows[: self._held], self._confidences[: self._held]
        for column, (edges, counts) in enumerate(zip(self._edges, self._histograms, strict=True)):
            counts += _binned(edges, rows[:, column])
        if self._confidence_edges is not None:
            self._confidence += _binned(self._confidence_edges, confidences)
        self._predictions += np.bincount(
            self._labels[: self._held], minlength=len(self._predictions)
        )
        if self._sketches is not None:
            self._sketches.update(rows, confidences)
        self._held = 0


def _edges(binned: Binned) -> NDArray[np.float64]:
    return np.asarray(binned.edges, dtype=np.float64)


def _binned(edges: NDArray[np.float64], values: Floats) -> NDArray[np.int64]:
    """Counts per bin. A few comparisons of a whole column cost a tenth of a search per value."""
    column = np.ascontiguousarray(values, dtype=np.float64)
    at_least = [len(column), *(np.count_nonzero(column >= edge) for edge in edges), 0]
    counts = np.asarray(at_least, dtype=np.int64)
    return counts[:-1] - counts[1:]


def _base64(sketch: kll_floats_sketch) -> str:
    return base64.b64encode(sketch.serialize()).decode()
