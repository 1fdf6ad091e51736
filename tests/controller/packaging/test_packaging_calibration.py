"""Calibrated thresholds lie above what unseen groups show, and below what a changed world shows."""

import numpy as np
import pytest

from edgeloop_controller.packaging.baseline import bin_counts, inner_edges
from edgeloop_controller.packaging.calibration import EXAMPLES, calibrate
from edgeloop_controller.packaging.golden import spread_rows
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, TensorSpec


def manifest(features: int) -> Manifest:
    return Manifest(
        name="m",
        version="1",
        artifact=Artifact(digest="a" * 64, size_bytes=1),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, features)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        scores_output="p",
        features=tuple(Feature(name=f"f{n}", sensor=f"s{n % 3}") for n in range(features)),
        labels=("0", "1"),
    )


def people(count: int, rows: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each person has an offset of its own in every feature."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(spread * rng.normal(size=6), 1, size=(rows, 6)) for _ in range(count)]
    return np.concatenate(parts).astype(np.float32), np.repeat(np.arange(count), rows)


def test_the_fleet_threshold_knows_how_much_people_differ():
    alike = calibrate(*people(6, 200, 0.05, seed=1), None, manifest(6))
    unlike = calibrate(*people(6, 200, 1.5, seed=1), None, manifest(6))
    assert alike is not None
    assert unlike is not None
    assert unlike.fleet > 3 * alike.fleet
    # Each device is compared with itself, so people that differ do not widen its threshold.
    assert unlike.device < 2 * alike.device
    assert (unlike.examples, unlike.groups) == (EXAMPLES, 6)


def test_halves_are_taken_within_labels():
    """One activity after the other: plain halves would see two different activities."""
    rng = np.random.default_rng(3)
    activity = np.tile(np.repeat([0, 1], 60), 4)
    features = (rng.normal(size=(480, 6)) + 8 * activity[:, None]).astype(np.float32)
    groups = np.repeat(np.arange(4), 120)
    with_labels = calibrate(features, groups, activity, manifest(6))
    without = calibrate(features, groups, None, manifest(6))
    assert with_labels is not None
    assert without is not None
    assert without.device > 4 * with_labels.device


@pytest.mark.parametrize("groups", [1, 2])
def test_too_few_groups_calibrate_nothing(groups):
    assert calibrate(*people(groups, 50, 0.1, seed=1), None, manifest(6)) is None


def test_many_groups_stay_affordable():
    assert calibrate(*people(40, 10, 0.1, seed=1), None, manifest(6)).groups == 40


def test_a_constant_column_shows_moves_to_either_side():
    edges = inner_edges(np.full(50, 2.5, dtype=np.float32))
    for moved in (2.4, 2.6):
        before = bin_counts(np.full(10, 2.5, dtype=np.float32), edges)
        after = bin_counts(np.full(10, moved, dtype=np.float32), edges)
        assert before.tolist() != after.tolist()


def test_bins_hold_every_value_once():
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    counts = bin_counts(values, inner_edges(values))
    assert counts.sum() == 1000
    assert counts.min() > 90


def test_golden_rows_are_distinct_and_far_apart():
    features = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    features[17] = 50
    chosen = spread_rows(features)
    assert len(set(chosen.tolist())) == 8
    assert 17 in chosen
    assert len(spread_rows(np.ones((5, 3), dtype=np.float32))) == 1
