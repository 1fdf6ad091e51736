"""Drift: scores, and telling a changed world from a broken sensor and from a foreign device."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeloop_controller.core.drift import (
    Cause,
    DeviceHistory,
    DriftWindow,
    Finding,
    Judgements,
    Scope,
    assess,
    examples_needed,
)
from edgeloop_controller.core.drift_scores import (
    Bins,
    Observed,
    bins_of,
    psi,
    score,
    score_each,
    sensor_drift,
)
from edgeloop_controller.core.drift_sketches import ks, read_sketch, write_sketch
from edgeloop_controller.packaging.baseline import bin_counts, make_baseline
from edgeloop_protocol.manifest import (
    Artifact,
    DriftThresholds,
    Feature,
    Manifest,
    Preprocessing,
    TensorSpec,
)
from edgeloop_protocol.messages import Sketches

CHANNELS = ("ax", "ay", "az", "wx")
STATISTICS = ("mean", "std", "min", "max", "mean_abs_diff")
PREPROCESSING = Preprocessing(
    kind="window_statistics", rows=20, channels=CHANNELS, statistics=STATISTICS
)
WINDOW = 25
N = 100


def examples(rng: np.random.Generator, count: int, *, flip: bool = False, stuck: bool = False):
    """Window statistics of recordings; `flip` turns ax around, `stuck` freezes wx."""
    raw = rng.normal(size=(count, 20, 4)) + rng.normal(2, 0.5, size=(count, 1, 4))
    if flip:
        raw[..., 0] = -raw[..., 0]
    if stuck:
        raw[..., 3] = 0.5
    parts = (
        raw.mean(1), raw.std(1), raw.min(1), raw.max(1), np.abs(np.diff(raw, axis=1)).mean(1)
    )  # fmt: skip
    return np.concatenate(parts, axis=1).astype(np.float32)


def manifest(thresholds: DriftThresholds | None = None) -> Manifest:
    features = examples(np.random.default_rng(0), 600)
    names = PREPROCESSING.feature_names()
    return Manifest(
        name="m",
        version="1",
        artifact=Artifact(digest="a" * 64, size_bytes=1),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 20)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        scores_output="p",
        preprocessing=PREPROCESSING,
        features=tuple(Feature(name=name, sensor=name.split("_")[0]) for name in names),
        labels=("0", "1"),
        baseline=make_baseline(features, scores_of(features), thresholds),
    )


def scores_of(features: np.ndarray) -> np.ndarray:
    sure = 1 / (1 + np.exp(-features[:, 0]))
    return np.stack([sure, 1 - sure], axis=1)


MODEL = manifest(DriftThresholds(examples=N, device=1.0, fleet=1.0, sensor=0.5))
assert MODEL.baseline is not None
BINS = bins_of(MODEL.baseline)


def window(number: int, features: np.ndarray, sketched: bool = False) -> DriftWindow:
    baseline = MODEL.baseline
    assert baseline is not None
    scores = scores_of(features)
    sketches = Sketches(
        count=len(features),
        features=tuple(write_sketch(column) for column in features.T),
        confidence=write_sketch(scores.max(axis=1).astype(np.float32)),
    )
    counts = BINS.row(
        [
            *(
                bin_counts(column, binned.edges).tolist()
                for column, binned in zip(features.T, baseline.features, strict=True)
            ),
            np.bincount(scores.argmax(axis=1), minlength=2).tolist(),
            bin_counts(scores.max(axis=1), baseline.confidence.edges).tolist(),
        ]
    )
    assert counts is not None
    return DriftWindow(number, len(features), counts, sketches if sketched else None)


def device(
    name: str,
    *,
    seed: int = 0,
    windows: int = 12,
    fault_open: bool = False,
    labels: dict[str, str] | None = None,
    sketched: bool = False,
    **now: bool,
) -> DeviceHistory:
    """A healthy past, and a present as `now` says; windows of 25 examples."""
    rng = np.random.default_rng([seed, *name.encode()])
    past = [window(n, examples(rng, WINDOW), sketched) for n in range(windows // 2)]
    present = [
        window(n, examples(rng, WINDOW, **now), sketched) for n in range(windows // 2, windows)
    ]
    every = past + present
    return DeviceHistory(name, labels or {}, every[:6], every[-6:], fault_open)


def found(findings: tuple[Finding, ...]) -> dict[tuple[Scope, str], Cause]:
    return {(f.scope, f.key): f.cause for f in findings if f.cause is not None}


def fleet(moved: int, count: int = 10, **labels: dict[str, str]) -> list[DeviceHistory]:
    return [device(f"d{n}", flip=n < moved, labels=labels.get(f"d{n}")) for n in range(count)]


def test_a_healthy_fleet_shows_nothing() -> None:
    findings = assess(fleet(0), MODEL)
    assert found(findings) == {}
    assert {f.scope for f in findings} == {Scope.FLEET, Scope.DEVICE}
    assert len(findings) == 11


def test_what_was_judged_before_is_found_as_if_judged_anew() -> None:
    known = Judgements(MODEL)
    calm = [device(f"d{n}") for n in range(4)]
    young = device("young", windows=4)
    moved = [device(f"d{n}", flip=True, windows=14) for n in range(3)]
    for devices in ([*calm, young], [*calm, young], [*moved, calm[3]], [*calm[:3], young]):
        assert assess(devices, MODEL, known) == assess(devices, MODEL)


def test_a_changed_world_is_one_finding() -> None:
    findings = assess(fleet(10), MODEL)
    assert found(findings) == {(Scope.FLEET, "*"): Cause.WORLD_CHANGED}
    world = findings[0]
    assert world.value > world.threshold
    assert world.evidence["devices_changed"] == 10
    assert world.evidence["features"][0]["sensor"] == "ax"
    assert "10 of 10 devices" in world.explanation


def test_a_broken_sensor_is_named_and_left_out() -> None:
    findings = assess([*fleet(0, 9), device("d9", stuck=True)], MODEL)
    assert found(findings) == {(Scope.DEVICE, "d9"): Cause.SENSOR_FAULT}
    fault = findings[-1]
    assert fault.sensor == "wx"
    assert fault.value > fault.threshold == 0.5
    assert findings[0].evidence["left_out"] == ["d9"]
    assert "d9" not in findings[0].evidence["devices"]


def test_a_changed_world_is_seen_beside_a_known_broken_sensor() -> None:
    devices = [*fleet(9, 9), device("d9", stuck=True, flip=True, fault_open=True)]
    assert found(assess(devices, MODEL)) == {
        (Scope.FLEET, "*"): Cause.WORLD_CHANGED,
        (Scope.DEVICE, "d9"): Cause.SENSOR_FAULT,
    }


def test_a_repaired_sensor_shows_nothing() -> None:
    devices = [*fleet(0, 9), device("d9", fault_open=True)]
    assert found(assess(devices, MODEL)) == {}


def test_when_every_device_loses_the_same_sensor_the_world_has_changed() -> None:
    devices = [device(f"d{n}", stuck=True) for n in range(6)]
    assert found(assess(devices, MODEL)) == {(Scope.FLEET, "*"): Cause.WORLD_CHANGED}


def test_one_device_that_differs_is_no_changed_world() -> None:
    assert found(assess(fleet(1), MODEL)) == {(Scope.DEVICE, "d0"): Cause.DEVICE_DIFFERS}


def test_while_a_change_spreads_no_device_is_called_odd() -> None:
    """Most devices have begun to move, but the merged fleet is not yet over its threshold."""
    model = manifest(DriftThresholds(examples=N, device=1.0, fleet=50.0, sensor=0.5))
    assert found(assess(fleet(6), model)) == {}
    assert len(found(assess(fleet(4), model))) == 4


def test_a_label_whose_devices_changed_is_found_by_itself() -> None:
    labels = {f"d{n}": {"site": "berlin" if n < 3 else "paris"} for n in range(10)}
    findings = assess(fleet(3, **labels), MODEL)
    assert found(findings) == {(Scope.LABEL, "site=berlin"): Cause.WORLD_CHANGED}
    explained = [f.evidence["explained_by"] for f in findings if f.scope is Scope.DEVICE]
    assert explained[:4] == ["site=berlin"] * 3 + [None]


def test_a_foreign_device_that_stays_itself_is_not_found() -> None:
    """It lies far from the training data, as any unseen person may, but has not changed."""
    rng = np.random.default_rng(5)
    odd = [window(n, examples(rng, WINDOW, flip=True)) for n in range(12)]
    findings = assess([*fleet(0, 9), DeviceHistory("odd", {}, odd[:6], odd[-6:])], MODEL)
    assert found(findings) == {}


@pytest.mark.parametrize("windows", [4, 6])
def test_young_devices_are_not_judged(windows: int) -> None:
    young = [device(f"d{n}", windows=windows, flip=True) for n in range(3)]
    assert assess(young, MODEL) == ()


def test_the_fleet_is_not_judged_by_a_minority() -> None:
    devices = [device("d0", flip=True), *(device(f"y{n}", windows=4) for n in range(3))]
    assert found(assess(devices, MODEL)) == {(Scope.DEVICE, "d0"): Cause.DEVICE_DIFFERS}


def test_histograms_over_other_bins_are_no_row() -> None:
    bins = Bins((2, 3, 1))
    assert bins.row([[1, 2], [3, 4, 5], [6]]) == pytest.approx(np.arange(1, 7))
    assert bins.row([[1, 2], [3, 4], [5]]) is None
    assert bins.row([[1, 2], [3, 4, 5]]) is None


def test_the_order_of_devices_changes_nothing() -> None:
    devices = [*fleet(2, 9), device("d9", stuck=True)]
    assert found(assess(devices[::-1], MODEL)) == found(assess(devices, MODEL))


def test_defaults_are_said_and_no_baseline_means_no_findings() -> None:
    plain = manifest()
    assert examples_needed(plain) == 100
    findings = assess(fleet(0, 3), plain)
    assert "defaults" in findings[0].evidence["thresholds"]
    assert assess(fleet(0, 3), plain.model_copy(update={"baseline": None})) == ()


def test_ks_stands_beside_psi_where_sketches_came() -> None:
    moved = assess([device("d0", flip=True, sketched=True)], MODEL)[-1]
    assert moved.evidence["confidence_ks"] == moved.score.confidence_ks
    assert 0.05 < (moved.score.confidence_ks or 0) <= 1
    assert assess([device("d0")], MODEL)[-1].evidence["confidence_ks"] is None
    by_name = {feature.name: feature.ks for feature in moved.score.features}
    assert by_name["ax_mean"] > 0.9
    assert by_name["wx_std"] < 0.4
    assert assess([device("d0", flip=True)], MODEL)[-1].score.ks is None


def test_a_sensor_of_one_feature_can_be_told_apart() -> None:
    """Tabular data: each column is its own sensor until the draft says otherwise."""
    columns = MODEL.model_copy(
        update={
            "preprocessing": Preprocessing(),
            "features": tuple(Feature(name=name, sensor=name) for name in "abc"),
        }
    )

    excesses, sensor = sensor_drift((0.1, 3.0, 0.2), columns)
    assert sensor == "b"
    assert excesses["b"] == pytest.approx(2.85)
    assert sensor_drift((2.0, 3.0, 0.2), columns)[1] is None


def test_a_single_sensor_has_nothing_to_be_told_from() -> None:
    one = MODEL.model_copy(
        update={"features": tuple(Feature(name=f.name, sensor="all") for f in MODEL.features)}
    )
    assert sensor_drift([5.0] * len(one.features), one) == ({}, None)


ROWS = arrays(np.int64, sum(BINS.sizes), elements=st.integers(0, 500)).map(
    lambda row: row.astype(float)
)


@given(ROWS, ROWS)
def test_psi_is_symmetric_and_never_negative(one: np.ndarray, other: np.ndarray) -> None:
    assert psi(one, other, BINS) == pytest.approx(psi(other, one, BINS))
    assert (psi(one, other, BINS) >= 0).all()
    assert (psi(one, one, BINS) == 0).all()


@given(st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=5))
def test_a_score_is_the_same_alone_and_among_others(pairs: list[tuple[np.ndarray, ...]]) -> None:
    """To the last bit: what is found of one device must not hang on who spoke with it."""
    observed = [(Observed(1, one), Observed(1, other)) for one, other in pairs]
    alone = [score(one, other, BINS, MODEL) for one, other in observed]
    assert score_each(observed, BINS, MODEL) == alone


def test_psi_of_histograms_with_different_bins_by_hand() -> None:
    p, q = 3.5 / 5, 1.5 / 5
    by_hand = (p - q) * np.log(p / q) + (q - p) * np.log(q / p)
    one, other = np.array([3.0, 1.0, 7.0, 7.0, 7.0]), np.array([1.0, 3.0, 2.0, 2.0, 2.0])
    assert psi(one, other, Bins((2, 3))) == pytest.approx([by_hand, 0.0])


def test_the_value_is_the_mean_of_the_three_largest_features() -> None:
    bins = Bins((2,) * len(MODEL.features) + (2, 2))
    current = np.full(sum(bins.sizes), 5.0)
    for place, count in ((0, 30.0), (8, 50.0), (20, 10.0), (30, 6.0), (40, 900.0)):
        current[place] = count
    found = score(Observed(1, current), Observed(1, np.full_like(current, 5.0)), bins, MODEL)
    largest = [found.distances[place] for place in (0, 4, 10)]
    assert found.value == pytest.approx(np.mean(largest))
    assert found.predictions_psi == found.distances[20] > 0


def test_ks_of_sketches_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=3000), rng.normal(0.5, size=3000)
    points = np.sort(np.concatenate([one, other]))
    exact = (
        np.abs(
            np.searchsorted(np.sort(one), points, side="right")
            - np.searchsorted(np.sort(other), points, side="right")
        ).max()
        / 3000
    )
    sketches = [read_sketch(write_sketch(x.astype(np.float32))) for x in (one, other)]
    assert sketches[0] is not None
    assert sketches[1] is not None
    assert ks(sketches[0], sketches[1]) == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("cut", [0, 1, 8, 40, 900])
def test_a_sketch_that_cannot_be_read_is_none(cut: int) -> None:
    whole = base64.b64decode(write_sketch(np.arange(1000, dtype=np.float32)))
    assert read_sketch(base64.b64encode(whole[:cut]).decode()) is None
    assert read_sketch("no base64!") is None


@given(st.binary(max_size=200))
def test_no_bytes_of_a_device_raise(junk: bytes) -> None:
    sketch = read_sketch(base64.b64encode(junk).decode())
    assert sketch is None or sketch.n >= 0
