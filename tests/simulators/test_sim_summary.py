"""Figures are computed from what was recorded: change a record and the figure changes."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeloop_simulators.errors import RecordError
from edgeloop_simulators.record import database_of, read_record, run_directory
from edgeloop_simulators.summary import rolling, summarize
from edgeloop_simulators.truth import Answer

EPOCH = "e" * 16
V1, V2, V3 = "1" * 64, "2" * 64, "3" * 64


def figures(out: Path) -> dict[str, Any]:
    return summarize(read_record(out))


def execute(out: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database_of(out))) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def rewrite(out: Path, name: str, change: Any) -> None:
    """Change each line of a JSON lines file; a line that becomes None is dropped."""
    path = run_directory(out) / name
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def test_the_figures_of_a_run_by_hand(handmade_run: Path) -> None:
    found = figures(handmade_run)
    assert found["devices"] == 4
    assert found["accuracy_v1_before"] == pytest.approx(0.9, abs=0.02)
    assert found["accuracy_v1_after_drift"] == pytest.approx(0.4, abs=0.03)
    assert found["accuracy_v2"] == pytest.approx(0.9, abs=0.03)
    assert found["seconds_to_detect_drift"] == 12
    assert 30 <= found["seconds_to_recover"] <= 40
    assert found["false_drift_alarms"] == 0
    assert found["sensor_fault_found"] is True
    assert found["bad_versions_exposed_fraction"] == 0.25
    assert found["bad_versions_stopped"] == {"permuted": "halted: disagrees with 2 on 98%"}
    assert (found["telemetry_lost"], found["telemetry_duplicated"]) == (0, 0)
    assert found["bytes_up_per_device"] == 5000
    assert found["run_seconds"] == 100


def test_deleted_rows_are_lost_telemetry(handmade_run: Path) -> None:
    execute(handmade_run, "delete from windows where device_id = 'd1' and sequence in (3, 16)")
    assert figures(handmade_run)["telemetry_lost"] == 2


def test_what_an_outbox_still_holds_is_not_lost(handmade_run: Path) -> None:
    execute(handmade_run, "delete from samples where sequence = 20")
    path = run_directory(handmade_run) / "outboxes.json"
    held = [one | {"held": 3} for one in json.loads(path.read_text())]
    path.write_text(json.dumps(held))
    assert figures(handmade_run)["telemetry_lost"] == 0


def test_rows_stored_twice_are_duplicates(handmade_run: Path) -> None:
    """Also when they came into another table, which no unique key forbids."""
    execute(
        handmade_run,
        "insert into events (at, kind, subject, data, device_id, epoch, sequence) "
        f"values (0, 'device.said', 'd0', '{{}}', 'd0', '{EPOCH}', 5)",
        "insert into events (at, kind, subject, data, device_id, epoch, sequence) "
        f"values (0, 'device.said', 'd2', '{{}}', 'd2', '{EPOCH}', 7)",
    )
    found = figures(handmade_run)
    assert found["telemetry_duplicated"] == 2
    assert found["telemetry_records"] == 80


@pytest.mark.parametrize("table", ["windows", "samples"])
def test_records_stored_again_under_other_numbers_are_duplicates(
    handmade_run: Path, table: str
) -> None:
    """As by an agent that said again, in a new epoch, what it had said already."""
    with closing(sqlite3.connect(database_of(handmade_run))) as connection:
        columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
    names = ", ".join(name for name in columns if name != "id")
    values = names.replace("epoch", "'another'").replace("sequence", "sequence + 100")
    again = f"insert into {table} ({names}) select {values} from {table} where device_id = 'd1'"
    execute(handmade_run, again)
    added = 16 if table == "windows" else 4
    assert figures(handmade_run)["telemetry_duplicated"] == added


def test_records_of_other_versions_or_times_are_no_duplicates(handmade_run: Path) -> None:
    execute(
        handmade_run,
        f"update windows set device_started_at = 1000, manifest_digest = '{V2}' where sequence = 3",
        "update windows set device_started_at = 1000 where sequence = 4",
        "update samples set device_taken_at = 1000",
    )
    assert figures(handmade_run)["telemetry_duplicated"] == 0


def test_wrong_answers_lower_the_accuracy_of_their_version_alone(handmade_run: Path) -> None:
    before = figures(handmade_run)
    rewrite(
        handmade_run,
        "answers.jsonl",
        lambda a: a | {"label": "B"} if a["manifest_digest"] == V2 else a,
    )
    after = figures(handmade_run)
    assert after["accuracy_v2"] == 0
    assert after["seconds_to_recover"] is None
    assert after["accuracy_v1_before"] == before["accuracy_v1_before"]


def test_an_accuracy_that_was_never_lost_does_not_recover(handmade_run: Path) -> None:
    rewrite(handmade_run, "answers.jsonl", lambda a: a | {"label": "A"})
    assert figures(handmade_run)["accuracy_v1_after_drift"] == 1
    assert figures(handmade_run)["seconds_to_recover"] is None


def test_windows_that_were_trained_on_or_overlap_never_count(handmade_run: Path) -> None:
    """Rows of v2's first ten seconds are told to have been trained on; they were all wrong."""
    rewrite(
        handmade_run,
        "answers.jsonl",
        lambda a: a | {"label": "B"} if a["manifest_digest"] == V2 and a["at"] < 1070 else a,
    )
    wrong = figures(handmade_run)["accuracy_v2"]
    path = run_directory(handmade_run) / "trained_on.json"
    trained = json.loads(path.read_text())
    trained[V2] = ["r0:705-795"]  # shares a row with each window from row 700 to row 800
    path.write_text(json.dumps(trained))
    found = figures(handmade_run)
    assert found["accuracy_v2"] > wrong + 0.2
    tally = found["answers_by_version"]["exercise@2"]
    assert tally["left_out_trained_on"] == 40
    assert tally["answers"] == tally["counted"] + 40


def test_a_version_of_unknown_training_data_has_no_accuracy(handmade_run: Path) -> None:
    path = run_directory(handmade_run) / "trained_on.json"
    path.write_text(json.dumps({V1: []}))
    assert figures(handmade_run)["accuracy_v2"] is None


def test_a_broken_device_does_not_count(handmade_run: Path) -> None:
    rewrite(
        handmade_run,
        "answers.jsonl",
        lambda a: a | {"broken": True, "label": "B"} if a["device"] == "d3" else a,
    )
    found = figures(handmade_run)
    assert found["accuracy_v1_before"] == pytest.approx(0.9, abs=0.03)
    tally = found["answers_by_version"]["exercise@1"]
    assert tally["left_out_broken_sensor"] > 0
    assert tally["accuracy_broken_sensor"] == 0


@pytest.mark.parametrize(
    ("change", "false"),
    [
        ("update drift_alarms set raised_at = 1020 where cause = 'world_changed'", 1),
        ("update drift_alarms set sensor = 'gyroscope-y' where cause = 'sensor_fault'", 1),
        ("update drift_alarms set key = 'd1' where cause = 'sensor_fault'", 1),
        (f"update drift_alarms set manifest_digest = '{V2}' where cause = 'world_changed'", 1),
        ("update drift_alarms set cause = 'device_differs' where cause = 'sensor_fault'", 0),
        ("update drift_alarms set raised_at = 1010 where cause = 'sensor_fault'", 1),
        ("update drift_alarms set raised_at = 1031 where cause = 'world_changed'", 0),
    ],
)
def test_an_alarm_without_a_cause_in_the_world_is_false(
    handmade_run: Path, change: str, false: int
) -> None:
    execute(handmade_run, change)
    assert figures(handmade_run)["false_drift_alarms"] == false


def test_without_a_change_every_alarm_of_it_is_false(handmade_run: Path) -> None:
    rewrite(handmade_run, "marks.jsonl", lambda m: None if m["kind"] == "world.changed" else m)
    found = figures(handmade_run)
    assert found["seconds_to_detect_drift"] is None
    assert found["seconds_to_recover"] is None
    assert found["false_drift_alarms"] == 1


def test_what_did_not_happen_is_none(handmade_run: Path) -> None:
    rewrite(
        handmade_run,
        "marks.jsonl",
        lambda m: None if m["data"].get("is") in ("retrained", "permuted") else m,
    )
    execute(handmade_run, "delete from drift_alarms")
    found = figures(handmade_run)
    for name in ("accuracy_v2", "seconds_to_detect_drift", "bad_versions_exposed_fraction"):
        assert found[name] is None
    assert found["sensor_fault_found"] is False


@pytest.mark.parametrize(
    ("statement", "exposed"),
    [
        (f"update windows set manifest_digest = '{V3}' where device_id = 'd2'", 0.5),
        (f"update windows set manifest_digest = '{V3}'", 1.0),
        ("update rollout_members set rollout_id = 3 where rollout_id = 2 and wave = 1", 1.0),
    ],
)
def test_each_device_that_ran_a_bad_version_was_exposed(
    handmade_run: Path, statement: str, exposed: float
) -> None:
    execute(handmade_run, statement)
    assert figures(handmade_run)["bad_versions_exposed_fraction"] == exposed


def test_half_a_line_at_the_end_is_left_out(handmade_run: Path) -> None:
    before = figures(handmade_run)["answers"]
    path = run_directory(handmade_run) / "answers.jsonl"
    path.write_text(path.read_text()[:-20])
    assert figures(handmade_run)["answers"] == before - 1


def test_a_directory_without_a_run_says_so(handmade_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no run"):
        read_record(tmp_path / "nothing")
    shutil.rmtree(database_of(handmade_run).parent)
    with pytest.raises(RecordError, match="holds no run"):
        read_record(handmade_run)


def test_rolling_looks_back_and_never_ahead(handmade_run: Path) -> None:
    answers: list[Answer] = list(read_record(handmade_run).answers)
    for at, window in rolling(answers):
        assert all(at - 8 <= answer.at < at for answer in window)
    assert len(list(rolling(answers))) == 99
    assert list(rolling([])) == []
