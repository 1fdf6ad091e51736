"""KLL sketches of features: read, written, merged, and how far two lie apart.

Invariants: pure; a sketch that cannot be read is left out.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Final

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray

SKETCH_K: Final = 200
"""KLL's k: 1.7 KB for 2,000 values, rank error below 0.01 (DESIGN §6)."""

KS_QUANTILES: Final = 64
"""Quantiles of each side at which the two distribution functions are compared."""


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


def merge_sketches(
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
