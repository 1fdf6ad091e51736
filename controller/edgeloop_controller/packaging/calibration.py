"""Drift thresholds from the training data itself: how far do groups lie that were left out?

A textbook's threshold (PSI above 0.2) fires on every person that was not in the training data.
Here every threshold is the largest score that was seen among groups (people, sites, machines) for
which nothing had changed, times a margin:

- fleet: one or two groups left out and merged, against a baseline of the others;
- device: each group's own first half against its second half;
- sensor: the same halves, the largest excess of a sensor.

Rows stand in time order within a group. Where there are labels, halves are taken within each label,
because recordings are often made one activity after the other, and halves of different activities
would calibrate a threshold that never fires.
"""

from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.core.drift_scores import Bins, Observed, Score, score
from edgeloop_controller.packaging.baseline import bin_counts, inner_edges
from edgeloop_protocol.manifest import DriftThresholds, Manifest

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

EXAMPLES: Final = 100
"""Examples that a score is taken over."""

MARGIN: Final = 1.25
GROUPS_MIN: Final = 3
PAIRS_MAX: Final = 60
"""Pairs of groups that are left out together; with more groups, evenly chosen ones."""

THRESHOLD_MIN: Final = 0.25
"""No threshold below what chance alone gives two sets of EXAMPLES examples."""


def calibrate(
    features: Floats,
    groups: NDArray[np.generic],
    labels: NDArray[np.generic] | None,
    manifest: Manifest,
) -> DriftThresholds | None:
    """`features` (n, features); `groups` and `labels` (n,). None below GROUPS_MIN groups.

    `manifest` gives the features' names, sensors and preprocessing; it needs no baseline yet.
    """
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(rows) < GROUPS_MIN:
        return None
    edges = [inner_edges(column) for column in features.T]
    halves = [_halves(of_group, labels) for of_group in rows]
    own = [
        _score(features, second, first, edges, manifest)
        for first, second in halves
        if len(first) and len(second)
    ]
    fleet = [
        _score_left_out(features, np.concatenate([rows[i] for i in left_out]), manifest)
        for left_out in _left_out(len(rows))
    ]
    excesses = [max(found.sensors.values(), default=0.0) for found in own]
    return DriftThresholds(
        examples=EXAMPLES,
        device=_threshold([found.value for found in own]),
        fleet=_threshold([found.value for found in fleet]),
        sensor=_threshold(excesses),
        groups=len(rows),
        margin=MARGIN,
    )


def _threshold(scores: list[float]) -> float:
    return max(THRESHOLD_MIN, MARGIN * max(scores, default=0.0))


def _left_out(groups: int) -> list[tuple[int, ...]]:
    """Each group alone, and pairs, leaving at least two groups for the baseline."""
    pairs = list(combinations(range(groups), 2)) if groups > GROUPS_MIN else []
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), PAIRS_MAX)).astype(int))
    return [(group,) for group in range(groups)] + [pairs[i] for i in chosen]


def _halves(rows: Rows, labels: NDArray[np.generic] | None) -> tuple[Rows, Rows]:
    """Earlier and later half, within each label, each thinned evenly to at most EXAMPLES rows."""
    parts = [rows] if labels is None else [rows[labels[rows] == x] for x in np.unique(labels[rows])]
    earlier = np.sort(np.concatenate([part[: len(part) // 2] for part in parts]))
    later = np.sort(np.concatenate([part[len(part) // 2 :] for part in parts]))
    return _thin(earlier), _thin(later)


def _thin(rows: Rows) -> Rows:
    if len(rows) <= EXAMPLES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, EXAMPLES).astype(np.intp)]


def _score_left_out(features: Floats, rows: Rows, manifest: Manifest) -> Score:
    """The rows that were left out, against edges and counts of all the others."""
    rest = np.setdiff1d(np.arange(len(features)), rows)
    edges = [inner_edges(column) for column in features[rest].T]
    return _score(features, rows, rest, edges, manifest)


def _score(
    features: Floats,
    current: Rows,
    reference: Rows,
    edges: list[tuple[float, ...]],
    manifest: Manifest,
) -> Score:
    bins = Bins((*(len(of_column) + 1 for of_column in edges), 1, 1))
    return score(
        _observed(features[current], edges), _observed(features[reference], edges), bins, manifest
    )


def _observed(features: Floats, edges: list[tuple[float, ...]]) -> Observed:
    """With nothing in the bins of predictions and confidence."""
    counts = [
        bin_counts(column, of_column) for column, of_column in zip(features.T, edges, strict=True)
    ]
    return Observed(len(features), np.concatenate([*counts, [0, 0]]).astype(np.float64))
