"""How far one set of examples lies from another: scores from histograms and KLL sketches.

The score of a scope is the mean of its three largest per-feature PSI (population stability
index): a change of the world moves a few features far and the rest hardly at all, so that a mean
or a median over all features sees nothing. KS distances from merged sketches, the mix of
predictions and the confidence stand beside it as evidence and decide nothing; they are computed
when somebody asks.

Invariants: pure; the order of merging changes no count; a score does not depend on what else is
scored with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import Final

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray

from edgeloop_controller.core.drift_sketches import ks, merge_sketches, read_sketch
from edgeloop_protocol.manifest import Baseline, Manifest
from edgeloop_protocol.messages import Sketches

Counts = NDArray[np.float64]

PSI_SMOOTHING: Final = 0.5
"""Added to each bin's count, of both sides: an empty bin must not make the index infinite."""

LARGEST_FEATURES: Final = 3

CONCENTRATION: Final = 2.0
"""Drift is of one sensor when its spread moved this many times as far as any other's, and most of
the largest features are its own. On the smartwatch data a moved wrist never looks so (at most 1.7
times), a stuck, amplified or noisy channel always does (at least 20 times)."""

SPREAD_STATISTICS: Final = ("std", "mean_abs_diff", "range")
"""What a broken sensor changes and a sensor that is worn another way does not."""


@dataclass(frozen=True)
class Bins:
    """How many bins each histogram has: of the features in the manifest's order, and last of the
    predictions and of the confidence. In a row of counts they stand one after the other."""

    sizes: tuple[int, ...]

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        return np.concatenate([[0], np.cumsum(self.sizes[:-1])]).astype(np.intp)

    def row(self, histograms: Sequence[Sequence[float]]) -> Counts | None:
        """None where the histograms are not over these bins."""
        if tuple(map(len, histograms)) != self.sizes:
            return None
        return np.array([count for counts in histograms for count in counts], dtype=np.float64)


def bins_of(baseline: Baseline) -> Bins:
    histograms = (*baseline.features, baseline.confidence)
    *features, confidence = (len(binned.shares) for binned in histograms)
    return Bins((*features, len(baseline.predictions), confidence))


@dataclass(frozen=True, eq=False)
class DriftWindow:
    """One WindowSummary of a version: `id` orders them (the row's id); `counts` as `Bins` say."""

    id: int
    count: int
    counts: Counts
    sketches: Sketches | None = None


@dataclass(frozen=True, eq=False)
class Observed:
    """Merged counts of some examples; `sketches` holds one merged KLL sketch a feature and, last,
    that of the confidence, or is empty."""

    count: int
    counts: Counts
    sketches: tuple[kll_floats_sketch, ...] = ()


@dataclass(frozen=True)
class FeatureDrift:
    """PSI of one feature, and the KS distance where sketches came; `ks` None without."""

    name: str
    sensor: str
    psi: float
    ks: float | None = None


@dataclass(frozen=True)
class Score:
    """How far `current` lies from `reference`; `value` is what is judged. `distances`: the PSI of
    each histogram, as `Bins` order them."""

    value: float
    distances: tuple[float, ...]
    current: Observed = field(compare=False)
    reference: Observed = field(compare=False)
    manifest: Manifest = field(compare=False)

    @property
    def examples(self) -> int:
        return self.current.count

    @property
    def predictions_psi(self) -> float:
        return self.distances[-2]

    @property
    def confidence_psi(self) -> float:
        return self.distances[-1]

    @cached_property
    def features(self) -> tuple[FeatureDrift, ...]:
        distances = self._ks or [None] * len(self.distances)
        return tuple(
            FeatureDrift(feature.name, feature.sensor, psi, ks)
            for feature, psi, ks in zip(
                self.manifest.features, self.distances[:-2], distances, strict=False
            )
        )

    @property
    def ks(self) -> float | None:
        """Mean of the three largest KS distances; None where no sketches came."""
        known = [feature.ks for feature in self.features if feature.ks is not None]
        return _mean_of_largest(known) if known else None

    @property
    def confidence_ks(self) -> float | None:
        """KS distance of the confidence; None where no sketches came."""
        return self._ks[-1] if self._ks else None

    @property
    def sensors(self) -> Mapping[str, float]:
        """Each sensor's excess (`sensor_drift`); empty with a single sensor."""
        return self._by_sensor[0]

    @property
    def concentrated_on(self) -> str | None:
        """The one sensor that the drift is of, if it is clearly of one."""
        return self._by_sensor[1]

    @cached_property
    def _by_sensor(self) -> tuple[Mapping[str, float], str | None]:
        return sensor_drift(self.distances[:-2], self.manifest)

    @cached_property
    def _ks(self) -> Sequence[float | None]:
        """Of each feature and, last, of the confidence; empty where no sketches came."""
        ones, others = self.current.sketches, self.reference.sketches
        if not len(ones) == len(others) == len(self.manifest.features) + 1:
            return ()
        return [ks(one, other) for one, other in zip(ones, others, strict=True)]


def psi(counts: Counts, reference: Counts, bins: Bins) -> Counts:
    """Population stability index of each histogram: 0 when alike, symmetric. Arrays (…, all bins)
    give (…, histograms).

    sum((p - q) ln(p / q)), with p and q the shares after PSI_SMOOTHING (Siddiqi, Credit Risk
    Scorecards, 2006, for the index).
    """
    p, q = _shares(counts, bins), _shares(reference, bins)
    distances: Counts = np.add.reduceat((p - q) * np.log(p / q), bins.starts, axis=-1)
    return distances


def _shares(counts: Counts, bins: Bins) -> Counts:
    totals = np.add.reduceat(counts, bins.starts, axis=-1) + PSI_SMOOTHING * np.array(bins.sizes)
    shares: Counts = (counts + PSI_SMOOTHING) / np.repeat(totals, bins.sizes, axis=-1)
    return shares


def score(current: Observed, reference: Observed, bins: Bins, manifest: Manifest) -> Score:
    """How far `current` lies from `reference`."""
    return score_each([(current, reference)], bins, manifest)[0]


def score_each(
    pairs: Sequence[tuple[Observed, Observed]], bins: Bins, manifest: Manifest
) -> list[Score]:
    """`score` of each (current, reference); for many at once, which is many times faster."""
    if not pairs:
        return []
    distances = psi(
        np.stack([current.counts for current, _ in pairs]),
        np.stack([reference.counts for _, reference in pairs]),
        bins,
    )
    values = np.sort(distances[:, :-2], axis=1)[:, -LARGEST_FEATURES:].mean(axis=1)
    return [
        Score(value, tuple(of_pair), current, reference, manifest)
        for value, of_pair, (current, reference) in zip(
            values.tolist(), distances.tolist(), pairs, strict=True
        )
    ]


def merge_windows(windows: Sequence[DriftWindow]) -> Observed:
    """At least one window; all over the same bins."""
    return Observed(
        count=sum(window.count for window in windows),
        counts=_sum([window.counts for window in windows]),
        sketches=merge_sketches(
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
        counts=_sum([part.counts for part in parts]),
        sketches=merge_sketches([part.sketches for part in parts if part.sketches]),
    )


def observed_baseline(baseline: Baseline) -> Observed:
    """The training data as if it had been observed: shares times count."""
    sketches = [read_sketch(b.sketch) for b in (*baseline.features, baseline.confidence)]
    known = tuple(sketch for sketch in sketches if sketch is not None)
    features = [share for binned in baseline.features for share in binned.shares]
    shares = (*features, *baseline.predictions, *baseline.confidence.shares)
    return Observed(
        count=baseline.count,
        counts=np.array(shares, dtype=np.float64) * baseline.count,
        sketches=known if len(known) == len(sketches) else (),
    )


def sensor_drift(
    distances: Sequence[float], manifest: Manifest
) -> tuple[Mapping[str, float], str | None]:
    """Each sensor's excess, and the sensor that the drift is concentrated on, if any. `distances`:
    the PSI of each feature, in the manifest's order.

    Excess: the mean PSI of the sensor's spread features less the median of the other sensors'.
    Where features are not window statistics, all of a sensor's count. With a single sensor there
    is nothing to tell it from: empty, and None.
    """
    means = _spread_by_sensor(distances, manifest)
    if len(means) < 2:
        return {}, None
    excesses = {
        sensor: mean - median([m for other, m in means.items() if other != sensor])
        for sensor, mean in means.items()
    }
    first, second = sorted(means, key=lambda sensor: means[sensor], reverse=True)[:2]
    sensors = [feature.sensor for feature in manifest.features]
    count = min(LARGEST_FEATURES, sensors.count(first))
    largest = sorted(range(len(sensors)), key=distances.__getitem__)[-count:]
    most_are_its_own = 2 * sum(sensors[place] == first for place in largest) > len(largest)
    clear = most_are_its_own and means[first] >= CONCENTRATION * means[second]
    return excesses, first if clear else None


def _spread_by_sensor(distances: Sequence[float], manifest: Manifest) -> Mapping[str, float]:
    by_sensor: dict[str, list[float]] = {}
    windowed = manifest.preprocessing.kind == "window_statistics"
    suffixes = tuple(f"_{statistic}" for statistic in SPREAD_STATISTICS)
    for feature, distance in zip(manifest.features, distances, strict=True):
        if not windowed or feature.name.endswith(suffixes):
            by_sensor.setdefault(feature.sensor, []).append(distance)
    return {sensor: fmean(found) for sensor, found in by_sensor.items()}


def _sum(rows: Sequence[Counts]) -> Counts:
    if len(rows) == 1:
        return rows[0]
    total: Counts = np.sum(rows, axis=0)
    return total


def _mean_of_largest(values: Sequence[float]) -> float:
    return fmean(sorted(values)[-LARGEST_FEATURES:])
