"""Several telemetry windows as one coarser one: what is kept of them, and what is not.

Kept exactly, as sums: examples, errors, NaN, labels, histograms, comparisons. Latency is not a sum:
p50 becomes the mean of the p50s, weighted by examples, which lies between the least and the
greatest of them but is not the median of all; p95 becomes the greatest p95, which the p95 of all
never exceeds. Memory is the peak. KLL sketches are gone: merging them needs numpy, which the
supervisor does not have.

Invariant: only windows of one key are merged, and the merged one has that key again.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from edgeloop_protocol.messages import Comparison, WindowSummary

Key = tuple[object, ...]


def merge_key(window: WindowSummary) -> Key:
    """What is answered by the same version on the same slot, counted over the same bins, beside the
    same version in shadow."""
    shadow = window.comparison.shadow.manifest_digest if window.comparison else ""
    shape = (len(window.predictions), len(window.confidence), *map(len, window.features))
    return window.slot, window.version.manifest_digest, shadow, shape


def without_sketches(window: WindowSummary) -> WindowSummary:
    return window.model_copy(update={"sketches": None})


def merge(windows: Sequence[WindowSummary]) -> WindowSummary:
    """At least one, all of one key."""
    last = windows[-1]
    return WindowSummary(
        slot=last.slot,
        version=last.version,
        windows=sum(w.windows for w in windows),
        started_at=min(w.started_at for w in windows),
        ended_at=max(w.ended_at for w in windows),
        count=sum(w.count for w in windows),
        errors=sum(w.errors for w in windows),
        nonfinite=sum(w.nonfinite for w in windows),
        latency_p50_us=_weighted_p50(windows),
        latency_p95_us=max(w.latency_p95_us for w in windows),
        memory_bytes=max(w.memory_bytes for w in windows),
        predictions=_added(w.predictions for w in windows),
        confidence=_added(w.confidence for w in windows),
        features=tuple(map(_added, zip(*(w.features for w in windows), strict=True))),
        comparison=_compared(windows),
    )


def _weighted_p50(windows: Sequence[WindowSummary]) -> float:
    examples = sum(w.count for w in windows)
    if not examples:
        return max(w.latency_p50_us for w in windows)
    return sum(w.latency_p50_us * w.count for w in windows) / examples


def _compared(windows: Sequence[WindowSummary]) -> Comparison | None:
    comparisons = [w.comparison for w in windows if w.comparison is not None]
    if not comparisons:
        return None
    return Comparison(
        shadow=comparisons[-1].shadow,
        count=sum(c.count for c in comparisons),
        disagreements=sum(c.disagreements for c in comparisons),
    )


def _added(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip_longest(*histograms, fillvalue=0)))
