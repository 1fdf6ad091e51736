"""Telemetry, samples, drift and alarms as DataFrames: columns, types, pages, limits."""

import warnings
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from controller_bench import Controller, FakeDevice

from edgeloop import EdgeloopError, Fleet, MissingExtraError, reading
from edgeloop.documents.loop import AlarmDocument, DriftDocument, FeatureScore, ScopeScore
from edgeloop_controller.services.inbox import Inbound
from edgeloop_protocol.messages import (
    Record,
    Sample,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic


def batch(device: FakeDevice, *bodies: Any) -> Inbound:
    records = tuple(Record(sequence=n, body=body) for n, body in enumerate(bodies, start=1))
    message = TelemetryBatch(epoch=device.epoch, base=1, records=records)
    return Inbound(up_topic(device.id, Up.TELEMETRY), encode(message))


def window(version: VersionRef, at: float) -> WindowSummary:
    return WindowSummary(
        slot="main",
        version=version,
        started_at=at,
        ended_at=at + 10,
        count=5,
        latency_p50_us=100.0,
        latency_p95_us=200.0,
        predictions=(3, 2),
    )


def sample(version: VersionRef, at: float) -> Sample:
    return Sample(
        slot="main",
        version=version,
        taken_at=at,
        reference=f"r{at}",
        features=(0.5, None, at),
        prediction=1,
        confidence=0.75,
    )


@pytest.fixture
def heard(controller: Controller) -> VersionRef:
    """Two devices that sent three windows and two samples each."""
    version = controller.publish("1")
    for device in (FakeDevice("d1"), FakeDevice("d2")):
        windows = [window(version, 10.0 * n) for n in range(3)]
        samples = [sample(version, 1.0 * n) for n in range(2)]
        controller.takes(device.hello(), batch(device, *windows, *samples))
    return version


def test_telemetry_is_a_row_a_window(
    fleet: Fleet, controller: Controller, heard: VersionRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_ROWS", 2)
    frame = fleet.telemetry()
    assert list(frame.columns) == [
        *reading.WINDOW_DTYPES,
        *("predicted_still", "predicted_walk"),
    ]
    assert frame["id"].is_monotonic_increasing
    assert frame["id"].is_unique
    assert frame.groupby("device")["examples"].sum().to_dict() == {"d1": 15, "d2": 15}
    assert frame["predicted_still"].sum() == 18
    assert set(frame["version"]) == {"tiny@1"}
    assert str(frame["received_at"].dt.tz) == "UTC"
    assert frame["received_at"][0] == pd.Timestamp(controller.clock.wall(), unit="s", tz="UTC")
    assert frame["ended_at"][0] - frame["started_at"][0] == timedelta(seconds=10)
    assert frame.dtypes["device"] == "string"
    assert frame.dtypes["examples"] == "int64"
    assert len(fleet.telemetry("d1", version="tiny@1", slot="main")) == 3
    later = datetime.fromtimestamp(controller.clock.wall() + 1)
    assert fleet.telemetry(since=later).empty
    assert len(fleet.telemetry(until=later)) == 6


def test_a_frame_that_is_cut_short_says_so(fleet: Fleet, heard: VersionRef) -> None:
    with pytest.warns(UserWarning, match="holds more than 4 rows"):
        assert len(fleet.telemetry(rows_max=4)) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fleet.telemetry(rows_max=6)) == 6, "there are no more"


def test_samples_have_their_features_by_name_and_take_labels(
    fleet: Fleet, controller: Controller, heard: VersionRef
) -> None:
    frame = fleet.samples()
    assert list(frame.columns) == [*reading.SAMPLE_DTYPES, "ax", "ay", "gx"]
    assert frame["gx"].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert frame["ay"].isna().all(), "a feature that the device keeps private"
    assert set(frame["predicted"]) == {"walk"}
    assert frame["label"].isna().all()
    assert fleet.label_samples({1: "still", 2: "walk"}, annotator="ada") == 2
    labelled = fleet.samples("d1")
    assert labelled["label"].tolist() == ["still", "walk"]
    assert labelled["labelled_at"].notna().all()
    assert len(fleet.samples(unlabelled=True)) == 2


def test_a_frame_of_nothing_has_its_columns_and_types(fleet: Fleet) -> None:
    for frame, dtypes in (
        (fleet.telemetry(), reading.WINDOW_DTYPES),
        (fleet.samples(), reading.SAMPLE_DTYPES),
        (fleet.drift(), reading.SCOPE_DTYPES),
        (fleet.drift(by="feature"), reading.FEATURE_DTYPES),
        (fleet.alarms(), reading.ALARM_DTYPES),
    ):
        assert frame.empty
        assert list(frame.columns) == list(dtypes)
        for name, dtype in dtypes.items():
            assert str(frame.dtypes[name]).startswith("datetime64" if dtype == "time" else dtype)
    with pytest.raises(EdgeloopError, match='by="scope"'):
        fleet.drift(by="sensor")  # type: ignore[arg-type]


def test_drift_is_a_row_a_scope_or_a_feature() -> None:
    score = ScopeScore(
        slot="main",
        version=VersionRef(name="tiny", version="1", manifest_digest="f" * 64),
        at=0.0,
        scope="device",
        key="d1",
        score=2.0,
        threshold=1.0,
        examples=100,
        cause="sensor_broken",
        sensor="gyroscope",
        explanation="gx",
        predictions_psi=0.1,
        confidence_psi=0.2,
        features=[
            FeatureScore(name="ax", sensor="accelerometer", psi=0.1, ks=None),
            FeatureScore(name="gx", sensor="gyroscope", psi=3.0, ks=0.9),
        ],
    )
    alarm = AlarmDocument(
        id=1,
        slot="main",
        version=None,
        scope="fleet",
        key="*",
        cause="world_changed",
        sensor=None,
        score=2.0,
        threshold=1.0,
        raised_at=60.0,
        cleared_at=None,
        evidence={},
    )
    document = DriftDocument(enabled=True, scores=[score], alarms=[alarm])
    scopes = reading.drift(document, "scope")
    assert scopes.loc[0, ["version", "key", "score"]].tolist() == ["tiny@1", "d1", 2.0]
    features = reading.drift(document, "feature").set_index("feature")
    assert features.loc["gx", ["key", "sensor", "psi"]].tolist() == ["d1", "gyroscope", 3.0]
    assert pd.isna(features.loc["ax", "ks"])
    alarms = reading.alarms(document)
    assert alarms["raised_at"][0] == pd.Timestamp("1970-01-01T00:01:00Z")
    assert pd.isna(alarms["cleared_at"][0])
    assert pd.isna(alarms["version"][0])


def test_times_as_people_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert reading.seconds(None) is None
    assert reading.seconds(7) == 7.0
    assert reading.seconds(timedelta(minutes=1)) == 940.0
    assert reading.seconds(pd.Timestamp("1970-01-01T00:01:00Z")) == 60.0


def test_without_pandas_the_extra_is_named(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeloop\[dataframes\]'"):
        fleet.alarms()
