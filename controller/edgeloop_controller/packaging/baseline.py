"""What a version's inputs and answers looked like on its training data, as histograms and sketches.

Invariants: edges are inner deciles, ascending and distinct; devices count over these very edges, so
that a merge needs no more than addition; features are compared as the float32 that devices see.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.core.drift_sketches import SKETCH_K, write_sketch
from edgeloop_protocol.manifest import Baseline, Binned, DriftThresholds
from edgeloop_protocol.scoring import answers

Floats = NDArray[np.float32]

BINS: Final = 10


def inner_edges(values: Floats) -> tuple[float, ...]:
    """Inner decile edges, distinct. A constant column gets the constant and the next number, so
    that a move to either side falls into another bin."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    if len(edges) == 1:
        edges = np.array([edges[0], np.nextafter(np.float32(edges[0]), np.float32(np.inf))])
    return tuple(float(edge) for edge in edges)


def bin_counts(values: Floats, edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Counts over the bins; as on devices: `searchsorted(edges, x, side="right")`."""
    bins = np.searchsorted(np.array(edges), values, side="right")
    return np.bincount(bins, minlength=len(edges) + 1)


def make_baseline(
    features: Floats, scores: NDArray[np.generic], thresholds: DriftThresholds | None
) -> Baseline:
    """`features` (n, features) finite; `scores` (n, labels) what the version says of them."""
    labels, confidence = answers(scores)
    answered = np.bincount(labels, minlength=scores.shape[1])
    return Baseline(
        count=len(features),
        features=tuple(_binned(column) for column in features.T),
        confidence=_binned(confidence),
        predictions=tuple(float(share) for share in answered / len(labels)),
        thresholds=thresholds,
    )


def _binned(values: Floats) -> Binned:
    edges = inner_edges(values)
    shares = bin_counts(values, edges) / len(values)
    return Binned(
        edges=edges,
        shares=tuple(float(share) for share in shares),
        sketch=write_sketch(_order_statistics(values)),
    )


def _order_statistics(values: Floats) -> Floats:
    """Up to SKETCH_K values, evenly spaced in rank: a sketch of so few is exact.

    A sketch of all of them would be randomised, and the same files would make another version
    each time that they are published.
    """
    ordered = np.sort(values)
    ranks = np.linspace(0, len(ordered) - 1, min(len(ordered), SKETCH_K))
    return ordered[np.round(ranks).astype(np.intp)]
