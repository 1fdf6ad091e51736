"""A small world, played once: what is expected of it, its report, and two runs compared."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeloop_simulators.cli import app
from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.virtual.report.compare import compare, read_report
from edgeloop_simulators.virtual.report.document import document
from edgeloop_simulators.virtual.report.evidence_document import (
    GATE_POINTS_MAX,
    drift_scores,
    gates,
)
from edgeloop_simulators.virtual.report.page import render, verdict
from edgeloop_simulators.virtual.run.evidence import GatePoint
from edgeloop_simulators.virtual.run.expectations import duration, judge
from edgeloop_simulators.virtual.run.play import Run, play
from edgeloop_simulators.virtual.scenario.build import build
from edgeloop_simulators.virtual.scenario.expect_tables import ExpectTable
from edgeloop_simulators.virtual.scenario.load import parse_virtual
from edgeloop_simulators.virtual.world.world import World

MINI = (Path(__file__).parent / "mini.toml").read_text(encoding="utf-8")
DRIFTING = (Path(__file__).parent / "drifting.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run() -> Run:
    return play(parse_virtual(MINI, "mini.toml", Path()))


@pytest.fixture(scope="module")
def drifting() -> Run:
    """A wrong version, halted; then the controller is killed; then a sensor breaks."""
    return play(parse_virtual(DRIFTING, "drifting.toml", Path()))


def test_what_the_recorder_saw(run: Run) -> None:
    recording = run.recording
    assert run.passed, [str(check) for check in run.checks if not check.passed]
    good, bad = recording.rollouts
    assert (good.version, good.status) == ("m@1", "done")
    assert (bad.version, bad.status) == ("m@2", "halted")
    assert set(bad.rolled_back) == {"yard-1", "yard-2"}
    assert len(bad.exposed) == 4
    assert recording.false_rollbacks() == []
    assert recording.champion("yard-1") == "m@1"
    assert recording.time_to_share_s(bad) is None
    assert 0 < (recording.time_to_share_s(good) or 0) < 300
    assert recording.accuracy() == pytest.approx(0.9, abs=0.01)
    track = recording.track("hall-1")
    assert [on for _, on in track.connected] == [True, False, True]
    assert recording.wedged() == []
    (fault,) = recording.recorder.faults
    assert (fault.from_s, fault.to_s) == (600.0, 780.0)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ({"converged": False}, "yes"),
        ({"false_rollbacks_max": 0}, None),
        ({"drift_alarms_max": 0}, None),
        ({"bytes_up_per_device_day_max": "1 B"}, r"kB"),
        ({"rollouts": [{"model": "m@2", "status": "done"}]}, r"halted: 2 of 4 devices rolled m@2"),
        ({"rollouts": [{"model": "m@2", "status": "halted", "rolled_back_devices": 2}]}, None),
        ({"rollouts": [{"model": "m@2", "rolled_back_devices": 1}]}, r"2: yard-1, yard-2"),
        ({"rollouts": [{"model": "m@2", "rolled_back_devices_min": 3}]}, r"2: yard-1"),
        ({"rollouts": [{"model": "m@2", "exposed_share_max": "50%"}]}, r"4 of 4 \(100.0%\)"),
        ({"rollouts": [{"model": "m@2", "exposed_devices_max": 3}]}, r"4 of 4"),
        ({"rollouts": [{"model": "m@2", "time_to_95_percent_max": "1 h"}]}, "it never did"),
        ({"rollouts": [{"model": "m@2", "ends_within": "1 s"}]}, r"min"),
        ({"rollouts": [{"model": "m@2", "verdict_says": "all is well"}]}, r"rolled m@2 back"),
        ({"rollouts": [{"model": "m@1", "time_to_95_percent_max": "5 min"}]}, None),
        ({"champions": [{"model": "m@1"}]}, None),
        ({"champions": [{"model": "m@2", "target": "site:yard"}]}, "0 of 2; yard-1 runs m@1"),
        ({"drift": [{"cause": "world_changed"}]}, "none"),
        ({"accuracy": [{"min": 0.89, "max": 0.91, "after": 300}]}, None),
        ({"accuracy": [{"min": 0.95}]}, r"90.\d%"),
        ({"accuracy": [{"max": 0.8, "target": "class:old"}]}, r"90.\d%"),
        ({"accuracy": [{"min": 0.1, "before": 1}]}, "no answers"),
    ],
)
def test_each_expectation_says_what_came(run: Run, given: dict, came: str | None) -> None:
    checks = judge(ExpectTable.model_validate(given), run.recording)
    failed = [check for check in checks if not check.passed]
    if came is None:
        assert failed == []
    else:
        (check,) = failed
        assert re.search(came, check.came)
        assert str(check).startswith(f"{check.what}: expected {check.expected}, came ")


def test_the_same_run_gives_the_same_document(run: Run) -> None:
    again = document(play(parse_virtual(MINI, "mini.toml", Path())))
    assert json.dumps(again) == json.dumps(document(run))


def test_the_page_stands_alone_and_escapes_what_people_write(run: Run) -> None:
    page = render(document(run))
    assert "Mini &lt;b&gt;" in page
    assert "<b>Mini" not in page
    assert not re.search(r"<script|src=|href=|@import|url\(", page)
    assert "As expected: all 5 expectations are met." in page
    for name in ("m@1", "m@2 (bad)", "hall-1", "yard-2", "partition of hall-1", "wave 1"):
        assert name in page, name
    assert page.count("<svg") == 14, "seven charts, for wide windows and for narrow ones"


def test_series_and_spans_tell_of_each_device(run: Run) -> None:
    report = document(run)
    running = report["series"]["running"]
    assert all(sum(at) == 4 for at in zip(*running.values(), strict=True))
    assert max(running["m@2"]) >= 2
    assert running["m@1"][-1] == 4
    yard = next(device for device in report["devices"] if device["id"] == "yard-1")
    versions = [(span["version"], span["trial"]) for span in yard["spans"]]
    assert versions == [("m@1", True), ("m@1", False), ("m@2", True), ("m@1", False)]
    assert len(yard["rolled_back_s"]) == 1


def test_the_verdict_says_what_failed_first(run: Run) -> None:
    report = document(run)
    report["expectations"][3] |= {"passed": False, "came": "7"}
    assert verdict(report) == (
        "Not as expected: telemetry records lost: expected none, came 7 (1 of 5 expectations are "
        "not met)."
    )


def test_compare_tells_what_changed_beyond_the_tolerance(run: Run) -> None:
    a, b = document(run), json.loads(json.dumps(document(run)))
    assert not any(row.changed for row in compare(a, b))
    b["figures"]["accuracy"]["value"] *= 1.04
    b["figures"]["drift alarms"]["value"] = 1
    del b["figures"]["wedged devices"]
    b["expectations"][1]["passed"] = False
    changed = {row.name: row for row in compare(a, b) if row.changed}
    assert set(changed) == {
        "accuracy",
        "drift alarms",
        "wedged devices",
        "expected: fleet converged yes",
    }
    assert changed["accuracy"].change == pytest.approx(0.04)
    assert changed["wedged devices"].b == "absent"
    assert "accuracy" in {row.name for row in compare(a, b, 0.03) if row.changed}
    assert "accuracy" not in {row.name for row in compare(a, b, 0.05) if row.changed}


def test_the_command_line(tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    good, bad, failing = (tmp_path / f"{name}.toml" for name in ("good", "bad", "failing"))
    good.write_text(MINI)
    bad.write_text(MINI.replace("devices = 2", "devices = 0", 1))
    failing.write_text(f'{MINI}\n[[expect.champions]]\nmodel = "m@2"\n')
    first, second = tmp_path / "first", tmp_path / "second"

    assert invoke(app, ["run", str(bad)]).exit_code == 2
    ran = invoke(app, ["run", str(good), "--report", str(first)])
    assert ran.exit_code == 0, ran.output
    assert "As expected: all 5 expectations are met." in ran.output
    assert (first / "report.html").is_file()
    assert (first / "run" / "scenario.toml").read_text() == MINI
    ran = invoke(app, ["run", str(failing), "--report", str(second), "--seed", "5"])
    assert ran.exit_code == 1, ran.output
    assert "expected at least 100%, came 0 of 4; hall-1 runs m@1" in ran.output
    assert read_report(second)["seed"] == 5

    assert invoke(app, ["compare", str(first), str(first)]).exit_code == 0
    compared = invoke(app, ["compare", str(first), str(second), "--json"])
    assert compared.exit_code == 1
    assert json.loads(compared.output)["changed"][-1].startswith("expected: devices of * that run")
    assert invoke(app, ["compare", str(first), str(tmp_path)]).exit_code == 2
    listed = invoke(app, ["list"]).output
    assert "healthy-rollout: Healthy rollout\n" in listed
    assert "watch: Shoulder exercises on a smartwatch (real processes)" in listed


def test_a_report_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"format": 0}')
    with pytest.raises(RecordError, match="another release"):
        read_report(tmp_path)


def test_durations_are_read_by_people() -> None:
    assert [duration(s) for s in (0, 0.5, 90, 3600, 93_600, 86_400 * 3)] == [
        "0 s",
        "0.5 s",
        "1 min 30 s",
        "1 h",
        "1 d 2 h",
        "3 d",
    ]


# ---- evidence -----------------------------------------------------------------------------------


def test_a_world_that_is_recorded_goes_the_same_way(drifting: Run, tmp_path: Path) -> None:
    loaded = parse_virtual(DRIFTING, "drifting.toml", Path())
    built = build(loaded, loaded.scenario.seed, tmp_path)
    outcome = World(built.spec, built.faults, loaded.scenario.seed, trace_messages=False).run()
    assert outcome == drifting.recording.outcome


def test_gates_are_told_by_what_they_measured_until_the_verdict(drifting: Run) -> None:
    first, bad = (rollout["gates"] for rollout in document(drifting)["rollouts"])
    assert (first["replaces"], bad["replaces"]) == ([], ["m@1"])
    assert all("disagreement" not in point for point in first["points"])
    assert [one["gate"] for one in bad["said"] if one["halted"]] == ["disagreement"]
    compared = [point["compared"] for point in bad["points"]]
    assert compared == sorted(compared)
    assert compared[0] < bad["terms"]["min_compared"] <= compared[-1]
    last = bad["points"][-1]
    assert last["bound"] < last["low"] < last["disagreement"] < last["high"]
    assert last["against"] == "m@1"
    assert (last["failed"], last["members"], last["allowed"]) == (0, 1, 0)


def test_failures_are_told_against_those_that_may(run: Run) -> None:
    (_, bad) = (rollout["gates"] for rollout in document(run)["rollouts"])
    last = bad["points"][-1]
    assert (last["failed"], last["members"], last["allowed"]) == (2, 4, 0)
    assert bad["said"][0]["sentence"].startswith("2 of 4 devices rolled m@2 back")


def test_of_many_points_so_many_are_kept_and_the_ends(
    drifting: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, rollout = drifting.recording, drifting.recording.rollouts[1]
    recorded = recording.recorder.evidence.gates
    last = recorded[rollout.id][-1]
    many = [GatePoint(float(at_s), last.verdicts) for at_s in range(10 * GATE_POINTS_MAX)]
    monkeypatch.setitem(recorded, rollout.id, many)
    kept = [point["at_s"] for point in gates(rollout, recording)["points"]]
    assert len(kept) == len(set(kept)) == GATE_POINTS_MAX
    assert (kept[0], kept[-1]) == (many[0].at_s, many[-1].at_s)


def test_drift_scores_stand_against_their_thresholds(drifting: Run) -> None:
    report = document(drifting)
    scores = next(one for one in report["drift_scores"] if one["version"] == "m@1")
    (alarm,) = report["drift"]
    by_time = dict(zip(report["times"], scores["series"]["sensor"], strict=True))
    limit, broken_s = scores["thresholds"]["sensor"], 7200.0
    assert all((v or 0.0) < limit for at, v in by_time.items() if at < broken_s)
    assert by_time[max(at for at in by_time if at <= alarm["raised_s"])] > limit
    assert scores["highest"]["sensor"]["of"] == "hall-3: vibration"
    assert scores["highest"]["device"]["of"] == "hall-3"
    assert scores["highest"]["fleet"]["value"] < scores["thresholds"]["fleet"]
    assert by_time[5436.0] is None, "the controller was down, and nobody looked"
    assert by_time[5328.0] is not None


def test_a_series_keeps_the_highest_of_each_step_and_what_was_found_last(
    drifting: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = next(iter(drifting.recording.recorder.evidence.drift.values()))
    looks = ((10.0, 1.0), (12.0, 3.0), (14.0, 2.0), (30.0, 4.0), (31.0, None))
    points = [track.points[0]._replace(at_s=at_s, fleet=value) for at_s, value in looks]
    monkeypatch.setattr(track, "points", points)
    monkeypatch.setattr(track, "left_s", [22.0])
    found = drift_scores(drifting.recording, [5.0, 15.0, 20.0, 25.0, 35.0, 40.0])[0]
    assert found["series"]["fleet"] == [None, 3.0, 2.0, None, 4.0, None]
    assert found["highest"]["fleet"] == {"at_s": 30.0, "value": 4.0, "of": "the fleet"}


def test_the_page_charts_what_was_judged(drifting: Run) -> None:
    page = render(document(drifting))
    for words in (
        "Disagreement with m@1",
        "Examples compared: 600 of 50 needed",
        "bound 50%",
        "halted by disagreement",
        "by the disagreement gate.",
        "disagrees with m@1 on 83% to 95% of 600 examples",
        "m@1, the first version here",
        "Highest sensor, beyond the others (PSI)",
        "threshold 0.5",
        "sensor hall-3: vibration",
    ):
        assert words in page, words
    assert "KS distance" not in page
    assert "Right on labelled examples" not in page


def test_the_page_charts_labels_and_sketches_where_there_are_some(drifting: Run) -> None:
    report = document(drifting)
    report["rollouts"][1]["gates"]["points"][-1] |= {
        "labelled": 70,
        "right": 0.5,
        "old_right": 0.9,
        "allowed_drop": 0.02,
    }
    scores = report["drift_scores"][0]
    scores["series"]["fleet_ks"] = [0.25] * len(report["times"])
    page = render(report)
    for words in ("Right on labelled examples: 70", "least 88%", "Fleet, KS distance"):
        assert words in page, words


def test_the_page_says_what_it_has_no_chart_for(run: Run) -> None:
    report = document(run)
    assert "Nothing was scored" in render(report)
    report["rollouts"][1]["gates"] |= {"points": [], "said": []}
    assert "No gate was asked" in render(report)
    report["rollouts"] *= 5
    assert "The last 8 of 10 rollouts" in render(report)
    report["rollouts"] = []
    assert "No rollout was started" in render(report)


def test_compare_tells_of_gates_and_scores(drifting: Run) -> None:
    a, b = document(drifting), document(drifting)
    rows = {row.name: row for row in compare(a, b)}
    assert rows["rollout 2 (m@2): halted by"].a == "disagreement"
    assert rows["rollout 2 (m@2): examples compared"].a == "600"
    assert rows["rollout 2 (m@2): disagreed with the old version"].a == "90.0%"
    assert rows["drift of m@1: sensor, highest score"].a == "12.66 times its threshold"
    b["figures"]["drift of m@1: sensor, highest score"]["value"] = 0.5
    assert [row.name for row in compare(a, b) if row.changed] == [
        "drift of m@1: sensor, highest score"
    ]
