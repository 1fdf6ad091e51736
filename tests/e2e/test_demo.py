"""The whole loop on real recordings and on a user's own data, and the same loop broken.

Each run starts a real controller, real agents and real runners. They stand in one file, which
`--dist loadfile` gives to one worker, because a machine of two cores plays one world at a time.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop_simulators.record import read_record

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-data"
SIM = Path(sys.executable).parent / "edgeloop-sim"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, play: Any) -> Iterator[Any]:
    finished = play("watch", tmp_path_factory.mktemp("demo") / "out", 420)
    assert finished.exit_code == 0, finished.output[-3000:]
    yield finished
    shutil.rmtree(finished.run.out)


@pytest.mark.timeout(480)
def test_the_loop_closes(demo: Any) -> None:
    found = demo.summary
    assert found["devices"] == 10
    assert 0.75 <= found["accuracy_v1_before"] <= 0.92
    assert found["accuracy_v1_after_drift"] < 0.68
    assert found["accuracy_v2"] > 0.8
    assert found["seconds_to_detect_drift"] > 0
    assert found["seconds_to_recover"] > found["seconds_to_detect_drift"]


@pytest.mark.timeout(480)
def test_one_broken_sensor_is_not_taken_for_a_changed_world(demo: Any) -> None:
    assert demo.summary["sensor_fault_found"] is True
    assert demo.summary["false_drift_alarms"] == 0


@pytest.mark.timeout(480)
def test_bad_versions_reach_their_canary_at_most(demo: Any) -> None:
    assert 0 < demo.summary["bad_versions_exposed_fraction"] <= 0.1
    stopped = demo.summary["bad_versions_stopped"]
    assert set(stopped) == {"permuted", "nan"}
    assert all(text.startswith("halted: ") for text in stopped.values())


@pytest.mark.timeout(480)
def test_telemetry_came_once(demo: Any) -> None:
    assert demo.summary["telemetry_records"] > 500
    assert demo.summary["telemetry_lost"] == 0
    assert demo.summary["telemetry_duplicated"] == 0
    assert demo.summary["bytes_up_per_device"] > 0


@pytest.mark.timeout(480)
def test_v2_was_judged_on_both_wrists_before_it_was_published(demo: Any) -> None:
    judged = demo.summary["evaluation_of_v2"]
    assert judged["held_back"]["accuracy"] > judged["held_back"]["against_accuracy"]
    for subset in ("before_drift", "since_drift"):
        assert judged[subset]["examples"] > 0


@pytest.mark.timeout(480)
def test_the_report_marks_what_happened(demo: Any) -> None:
    page = (demo.run.out / "report.html").read_text()
    for text in ("right wrist → left wrist", "world_changed on the fleet", "v2: rollout done"):
        assert text in page
    assert page.count("rollout halted") >= 2


@pytest.mark.timeout(480)
def test_every_device_was_a_real_agent_with_a_real_runner(demo: Any) -> None:
    agents, runners = demo.run.agents(), demo.run.runners()
    configurations = (demo.run.out / "run" / "devices").glob("*/agent.toml")
    assert set(agents) == {str(path) for path in configurations}
    assert len(agents) == 10
    assert all(len(pids) == 1 for pids in agents.values())
    for (pid,) in agents.values():
        assert runners.get(pid), f"agent {pid} was never seen with a runner of its own"
    assert demo.run.left() == []


@pytest.mark.timeout(480)
def test_good_versions_were_tried_on_one_canary_first(demo: Any) -> None:
    record = read_record(demo.run.out)
    good = {record.digest_of(kind): kind for kind in ("first", "retrained")}
    rollouts = [r for r in record.rollouts if r["manifest_digest"] in good]
    assert [good[r["manifest_digest"]] for r in rollouts] == ["first", "retrained"]
    for rollout in rollouts:
        members = [m for m in record.members if m["rollout_id"] == rollout["id"]]
        canaries = [m for m in members if m["wave"] == 0]
        others = [m["offered_at"] for m in members if m["wave"] > 0]
        assert [m["phase"] for m in canaries] == ["committed"]
        assert len(others) == 9
        assert canaries[0]["offered_at"] < canaries[0]["settled_at"] <= min(others)


@pytest.mark.timeout(480)
def test_the_figures_can_be_computed_again(demo: Any) -> None:
    before = demo.summary
    subprocess.run([SIM, "summarize", demo.run.out], check=True, stdout=subprocess.DEVNULL)
    assert demo.summary == before


@pytest.mark.timeout(240)
def test_the_loop_closes_on_a_users_csv_and_script(tmp_path: Path, play: Any) -> None:
    finished = play(str(EXAMPLE / "scenario.toml"), tmp_path / "out", 210)
    assert finished.exit_code == 0, finished.output[-3000:]
    found = finished.summary
    assert found["devices"] == len(finished.run.agents()) == 4
    assert found["accuracy_v1_after_drift"] < found["accuracy_v1_before"] - 0.1
    assert found["accuracy_v2"] > found["accuracy_v1_after_drift"] + 0.1
    assert found["seconds_to_recover"] > found["seconds_to_detect_drift"] > 0
    assert found["bad_versions_exposed_fraction"] == 0.25
    assert (found["telemetry_lost"], found["telemetry_duplicated"]) == (0, 0)
    assert finished.run.left() == []


# ---- broken loops ---------------------------------------------------------------------------

HEAD = """
title = "A small and quick world"
[data]
kind = "tabular"
file = "{example}/exercises.csv"
channels = ["ax_mean", "ay_mean", "az_mean", "ax_std", "ay_std", "az_std",
            "ax_min", "ay_min", "az_min", "ax_max", "ay_max", "az_max"]
label = "exercise"
group = "person"
phase = "wrist"
before = "right"
after = "left"
train_groups = ["p2", "p4", "p5", "p6", "p7"]
device_groups = ["p1", "p8", "p9", "p10"]
[devices]
examples_per_s = 40
[telemetry]
window_s = 1
[annotator]
fraction = {annotated}
delay_s = 1
[controller]
tick_s = 0.2
drift_s = 0.5
[training]
script = "{example}/train.py"
model = "exercise"
[training.policy]
min_labels = 40
[training.policy.rollout]
waves = ["1", "100%"]
soak_s = 1
[rollout]
waves = ["1", "100%"]
[rollout.terms]
soak_s = 1
{terms}
[rollout.terms.probation]
min_s = 1
[[steps]]
do = "publish_first"
[[steps]]
do = "start_devices"
[[steps]]
do = "roll_out_first"
"""
OBSERVE = '[[steps]]\ndo = "observe"\nexamples = 120\n'
CHANGE = '[[steps]]\ndo = "change_world"\nsettle_s = 1\n'


@pytest.fixture
def small_world(tmp_path: Path, play: Any) -> Callable[..., Any]:
    def play_small(steps: str, annotated: float = 1.0, terms: str = "") -> Any:
        path = tmp_path / "scenario.toml"
        head = HEAD.format(example=EXAMPLE, annotated=annotated, terms=terms)
        path.write_text(head + steps)
        return play(str(path), tmp_path / "out", 150)

    return play_small


@pytest.mark.timeout(180)
def test_without_an_annotator_there_is_no_second_version(
    small_world: Callable[..., Any],
) -> None:
    steps = OBSERVE + CHANGE + '[[steps]]\ndo = "retrain"\ndeadline_s = 6\n'
    finished = small_world(steps, annotated=0.0)
    assert finished.exit_code == 1
    assert "no training run ended within 6 s" in finished.output
    assert finished.summary["seconds_to_detect_drift"] > 0
    assert finished.summary["accuracy_v1_after_drift"] < finished.summary["accuracy_v1_before"]
    assert finished.summary["accuracy_v2"] is None
    assert finished.summary["seconds_to_recover"] is None
    assert finished.run.left() == []


@pytest.mark.timeout(180)
def test_where_nobody_moves_no_drift_is_detected(small_world: Callable[..., Any]) -> None:
    finished = small_world(OBSERVE + CHANGE + "share = 0.0\ndeadline_s = 8\n")
    assert finished.exit_code == 1
    assert finished.summary["seconds_to_detect_drift"] is None
    assert finished.summary["accuracy_v1_after_drift"] is None
    assert finished.summary["false_drift_alarms"] == 0
    assert finished.run.left() == []


@pytest.mark.timeout(180)
def test_with_the_gates_off_a_bad_version_reaches_everybody(
    small_world: Callable[..., Any],
) -> None:
    steps = '[[steps]]\ndo = "publish_bad"\nkind = "permuted"\n'
    finished = small_world(steps, terms="max_disagreement = 1.0\nmax_accuracy_drop = 1.0")
    assert finished.exit_code == 1
    assert "v2 was not stopped" in finished.output
    assert finished.summary["bad_versions_exposed_fraction"] == 1.0
    assert finished.run.left() == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_a_run_is_cut_short(
    tmp_path: Path, run_of: Any, number: signal.Signals, wait_until: Callable[..., None]
) -> None:
    run = run_of(str(EXAMPLE / "scenario.toml"), tmp_path / "out")
    process = run.start()
    try:
        wait_until(run.runners, timeout_s=90, what="a runner is there")
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    wait_until(lambda: not run.left(), timeout_s=30, what="every process has ended")
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
