"""How far one set of examples lies from another: scores from histograms and KLL sketches.

The score of a scope is the mean of its three largest per-feature PSI (population stability
index): a change of the world moves a few features far and the rest hardly at all, so that a mean
or a median over all features sees nothing. KS distances from merged sketches, the mix of
predictions and the confidence stand beside it as evidence and decide nothing.

Invariants: pure; the order of merging changes no count; a sketch that cannot be read is left out.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray

from edgeloop_protocol.manifest import Baseline, Manifest
from edgeloop_protocol.messages import Sketches

Counts = NDArray[np.float64]

PSI_SMOOTHING: Final = 0.5
"""Added to each bin's count, of both sides: an empty bin must not make the index infinite."""

LARGEST_FEATURES: Final = 3

SKETCH_K: Final = 200
"""KLL's k: 1.7 KB for 2,000 values, rank error below 0.01 (DESIGN §6)."""

KS_QUANTILES: Final = 64
"""Quantiles of each side at which the two distribution functions are compared."""

CONCENTRATION: Final = 2.0
"""Drift is of one sensor when its spread moved this many times as far as any other's, and most of
the largest features are its own. On the smartwatch data a moved wrist never looks so (at most 1.7
times), a stuck, amplified or noisy channel always does (at least 20 times)."""

SPREAD_STATISTICS: Final = ("std", "mean_abs_diff", "range")
"""What a broken sensor changes and a sensor that is worn another way does not."""


@dataclass(frozen=True)
class DriftWindow:
    """One WindowSummary of a version: `id` orders them (the row's id); counts as on the wire."""

    id: int
    count: int
    features: tuple[tuple[int, ...], ...]
    predictions: tuple[int, ...]
    confidence: tuple[int, ...]
    sketches: Sketches | None = None


@dataclass(frozen=True)
class FeatureDrift:
    """PSI of one feature, and the KS distance where sketches came; `ks` None without."""

    name: str
    sensor: str
    psi: float
    ks: float | None = None


@dataclass(frozen=True)
class Score:
    """How far `examples` lie from what they are compared with; `value` is what is judged."""

    value: float
    examples: int
    features: tuple[FeatureDrift, ...]
    predictions_psi: float
    confidence_psi: float
    sensors: Mapping[str, float]
    """Each sensor's excess (`sensor_drift`); empty with a single sensor."""
    confidence_ks: float | None = None
    """KS distance of the confidence; None where no sketches came."""
    concentrated_on: str | None = None
    """The one sensor that the drift is of, if it is clearly of one."""

    @property
    def ks(self) -> float | None:
        """Mean of the three largest KS distances; None where no sketches came."""
        known = [feature.ks for feature in self.features if feature.ks is not None]
        return _mean_of_largest(known) if known else None


@dataclass(frozen=True)
class Observed:
    """Merged counts of some examples; `sketches` holds one merged KLL sketch a feature and, last,
    that of the confidence, or is empty."""

    count: int
    features: tuple[Counts, ...]
    predictions: Counts
    confidence: Counts
    sketches: tuple[kll_floats_sketch, ...] = ()


def psi(counts: Counts, reference: Counts) -> float:
    """Population stability index of two histograms over the same bins: 0 when alike, symmetric.

    sum((p - q) ln(p / q)), with p and q the shares after PSI_SMOOTHING (Siddiqi, Credit Risk
    Scorecards, 2006, for the index).
    """
    p = (counts + PSI_SMOOTHING) / (counts.sum() + PSI_SMOOTHING * len(counts))
    q = (reference + PSI_SMOOTHING) / (reference.sum() + PSI_SMOOTHING * len(reference))
    return float(((p - q) * np.log(p / q)).sum())


def psi_of_each(counts: Sequence[Counts], references: Sequence[Counts]) -> list[float]:
    """`psi` of each pair; at once where all have as many bins, which is several times faster."""
    if len({len(one) for one in counts}) != 1:
        return [psi(one, other) for one, other in zip(counts, references, strict=True)]
    current, reference = np.array(counts), np.array(references)
    smoothing = PSI_SMOOTHING * current.shape[1]
    p = (current + PSI_SMOOTHING) / (current.sum(axis=1, keepdims=True) + smoothing)
    q = (reference + PSI_SMOOTHING) / (reference.sum(axis=1, keepdims=True) + smoothing)
    distances: list[float] = ((p - q) * np.log(p / q)).sum(axis=1).tolist()
    return distances


def ks(one: kll_floats_sketch, other: kll_floats_sketch) -> float | None:
    """Kolmogorov-Smirnov distance of two sketches, in [0, 1]; None when either is empty."""
    if one.is_empty() or other.is_empty():
        return None
    ranks = np.linspace(0, 1, KS_QUANTILES).tolist()
    points = np.unique(
        np.array([*one.get_quantiles(ranks), *other.get_quantiles(ranks)], dtype=np.float32)
    )
    gaps = np.abs(
        np.subtract(one.get_cdf(points.tolist(), True), other.get_cdf(points.tolist(), True))
    )
    return float(gaps.max())


def read_sketch(text: str) -> kll_floats_sketch | None:
    """A base64 KLL sketch; None when there is none or it cannot be read."""
    try:
        return (
            kll_floats_sketch.deserialize(base64.b64decode(text, validate=True)) if text else None
        )
    except (binascii.Error, ValueError, RuntimeError, IndexError, MemoryError):
        return None


def write_sketch(values: NDArray[np.float32]) -> str:
    """The base64 KLL sketch of `values` (finite)."""
    sketch = kll_floats_sketch(SKETCH_K)
    sketch.update(np.ascontiguousarray(values, dtype=np.float32))
    return base64.b64encode(sketch.serialize()).decode()


def fits(window: DriftWindow, baseline: Baseline) -> bool:
    """Whether the window's histograms are over this baseline's bins."""
    return (
        window.count > 0
        and len(window.predictions) == len(baseline.predictions)
        and len(window.confidence) == len(baseline.confidence.shares)
        and len(window.features) == len(baseline.features)
        and all(
            len(counts) == len(binned.shares)
            for counts, binned in zip(window.features, baseline.features, strict=True)
        )
    )


def merge_windows(windows: Sequence[DriftWindow]) -> Observed:
    """At least one window; all over the same bins."""
    return Observed(
        count=sum(window.count for window in windows),
        features=tuple(
            np.sum(counts, axis=0, dtype=np.float64)
            for counts in zip(*(window.features for window in windows), strict=True)
        ),
        predictions=np.sum([w.predictions for w in windows], axis=0, dtype=np.float64),
        confidence=np.sum([w.confidence for w in windows], axis=0, dtype=np.float64),
        sketches=_merge_sketches(
            [
                tuple(map(read_sketch, (*w.sketches.features, w.sketches.confidence)))
                for w in windows
                if w.sketches
            ]
        ),
    )


def merge(parts: Sequence[Observed]) -> Observed:
    """At least one part; all over the same bins."""
    return Observed(
        count=sum(part.count for part in parts),
        features=tuple(
            np.sum(counts, axis=0) for counts in zip(*(p.features for p in parts), strict=True)
        ),
        predictions=np.sum([part.predictions for part in parts], axis=0),
        confidence=np.sum([part.confidence for part in parts], axis=0),
        sketches=_merge_sketches([part.sketches for part in parts if part.sketches]),
    )


def observed_baseline(baseline: Baseline) -> Observed:
    """The training data as if it had been observed: shares times count."""
    sketches = [read_sketch(b.sketch) for b in (*baseline.features, baseline.confidence)]
    known = tuple(sketch for sketch in sketches if sketch is not None)
    return Observed(
        count=baseline.count,
        features=tuple(np.array(b.shares) * baseline.count for b in baseline.features),
        predictions=np.array(baseline.predictions) * baseline.count,
        confidence=np.array(baseline.confidence.shares) * baseline.count,
        sketches=known if len(known) == len(sketches) else (),
    )


def score(current: Observed, reference: Observed, manifest: Manifest) -> Score:
    """How far `current` lies from `reference`; both over the manifest's baseline bins."""
    distances = psi_of_each(current.features, reference.features)
    sketched = len(current.sketches) == len(reference.sketches) == len(manifest.features) + 1
    features = tuple(
        FeatureDrift(
            name=feature.name,
            sensor=feature.sensor,
            psi=distance,
            ks=ks(current.sketches[i], reference.sketches[i]) if sketched else None,
        )
        for i, (feature, distance) in enumerate(zip(manifest.features, distances, strict=True))
    )
    excesses, concentrated_on = sensor_drift(features, manifest)
    return Score(
        value=_mean_of_largest(distances),
        examples=current.count,
        features=features,
        predictions_psi=psi(current.predictions, reference.predictions),
        confidence_psi=psi(current.confidence, reference.confidence),
        sensors=excesses,
        confidence_ks=ks(current.sketches[-1], reference.sketches[-1]) if sketched else None,
        concentrated_on=concentrated_on,
    )


def sensor_drift(
    features: Sequence[FeatureDrift], manifest: Manifest
) -> tuple[Mapping[str, float], str | None]:
    """Each sensor's excess, and the sensor that the drift is concentrated on, if any.

    Excess: the mean PSI of the sensor's spread features less the median of the other sensors'.
    Where features are not window statistics, all of a sensor's count. With a single sensor there
    is nothing to tell it from: empty, and None.
    """
    means = _spread_by_sensor(features, manifest)
    if len(means) < 2:
        return {}, None
    excesses = {
        sensor: mean - median([m for other, m in means.items() if other != sensor])
        for sensor, mean in means.items()
    }
    first, second = sorted(means, key=lambda sensor: means[sensor], reverse=True)[:2]
    own = sum(feature.sensor == first for feature in features)
    largest = sorted(features, key=lambda feature: feature.psi)[-min(LARGEST_FEATURES, own) :]
    most_are_its_own = 2 * sum(feature.sensor == first for feature in largest) > len(largest)
    clear = most_are_its_own and means[first] >= CONCENTRATION * means[second]
    return excesses, first if clear else None


def _spread_by_sensor(features: Sequence[FeatureDrift], manifest: Manifest) -> Mapping[str, float]:
    by_sensor: dict[str, list[float]] = {}
    windowed = manifest.preprocessing.kind == "window_statistics"
    suffixes = tuple(f"_{statistic}" for statistic in SPREAD_STATISTICS)
    for feature in features:
        if not windowed or feature.name.endswith(suffixes):
            by_sensor.setdefault(feature.sensor, []).append(feature.psi)
    return {sensor: fmean(found) for sensor, found in by_sensor.items()}


def _merge_sketches(
    sketched: Sequence[tuple[kll_floats_sketch | None, ...]],
) -> tuple[kll_floats_sketch, ...]:
    """One sketch for each that a part holds; empty when none came or one could not be read."""
    if not sketched or len({len(sketches) for sketches in sketched}) != 1:
        return ()
    merged = tuple(kll_floats_sketch(SKETCH_K) for _ in sketched[0])
    for sketches in sketched:
        for into, sketch in zip(merged, sketches, strict=True):
            if sketch is None:
                return ()
            into.merge(sketch)
    return merged


def _mean_of_largest(values: Sequence[float]) -> float:
    return fmean(sorted(values)[-LARGEST_FEATURES:])
