"""Exploring, shrinking and replaying: the same everywhere, small, and open to a look."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeloop_simulators.cli import app
from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.seeds.case import case_of
from edgeloop_simulators.virtual.seeds.case_play import play
from edgeloop_simulators.virtual.seeds.explore import Findings, play_seed
from edgeloop_simulators.virtual.seeds.mutants import planted
from edgeloop_simulators.virtual.seeds.replay import Shown, StopAt, replay, stop_at
from edgeloop_simulators.virtual.seeds.shrink import fewest, shrink, story

pytestmark = pytest.mark.timeout(300)

SIM = [sys.executable, "-m", "edgeloop_simulators.cli"]
SOON = "acknowledged-before-commit"
"""A planted bug that a world shows within its first seconds."""


def sim(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SIM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=250,
        check=False,
    )


# ---- shrinking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("needed", [(), (0,), (7,), (0, 9), (3, 4), (1, 5, 8), tuple(range(10))])
def test_only_what_is_needed_is_left(needed: Sequence[int]) -> None:
    left = fewest(range(10), lambda part: set(needed) <= set(part))
    assert left == tuple(needed)


def test_one_of_several_reasons_is_left() -> None:
    left = fewest(range(12), lambda part: 11 in part or {2, 5} <= set(part))
    assert left in ((11,), (2, 5))


def test_a_failing_world_is_shrunk_to_a_short_story() -> None:
    with planted(SOON):
        failing = play_seed(3)
        shrunk = shrink(failing)
    case = shrunk.played.case
    assert failing.law == shrunk.played.law == "EL-INV-6"
    assert (case.faults, case.steps, len(case.devices)) == ((), (), 1)
    lines = list(story(shrunk))
    assert lines[0].startswith("seed 3 breaks EL-INV-6 at ")
    device = case.devices[0]
    assert lines[-2] == f"  edgeloop-sim replay 3 --faults none --steps none --devices {device}"


def test_a_fault_less_leaves_the_luck_of_the_rest() -> None:
    """Up to where it would have begun, nothing is different."""
    whole, seen = case_of(3), ([], [])
    late = max(whole.faults, key=lambda fault: fault.at_s)
    rest = tuple(fault for fault in whole.faults if fault is not late)
    without = type(whole)(whole.seed, rest, whole.steps, whole.devices)
    for case, found in zip((whole, without), seen, strict=True):
        play(case, (found.append,), StopAt(at_s=60.0))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 50


def test_numbers_that_a_world_has_not_are_said_so() -> None:
    case = case_of(3)
    with pytest.raises(CaseError, match="device 99 is not in this seed's world"):
        type(case)(3, case.faults, case.steps, (99,)).drawn()


# ---- the same everywhere ------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_traces_in_other_processes() -> None:
    """This one has another hash seed, as each process does by default."""
    explored = sim("explore", "--seeds", "2", "--jobs", "2", "--json", PYTHONHASHSEED="1")
    assert explored.returncode == 0, explored.stderr
    found = json.loads(explored.stdout)
    again = Findings()
    for seed in (1, 0):
        again.add(play_seed(seed))
    assert found["trace_hash"] == again.trace_hash()
    assert (found["seeds"], found["events"]) == (2, again.events)
    assert sum(found["faults"].values()) == sum(len(case_of(seed).faults) for seed in (0, 1))
    assert found["violations"] == {}


def test_looking_changes_nothing() -> None:
    lines: list[str] = []
    told = replay(case_of(0), Shown(parts=("device-1",)), lines.append)
    assert told == play_seed(0)
    assert f"trace hash {told.trace_hash}" in lines
    assert any("device-1" in line and "slot.state" in line for line in lines)


def test_an_interrupt_ends_it_and_leaves_nobody(wait_until: Callable[..., None]) -> None:
    process = subprocess.Popen(
        [*SIM, "explore", "--seeds", "100000", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in its background has interrupts ignored, by inheritance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) >= 2, 60, "processes are started")
    left = [Path(f"/proc/{pid}") for pid in children.read_text().split()]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in out
    assert "Traceback" not in errors
    wait_until(lambda: not any(child.exists() for child in left), what="no process is left")


# ---- replaying ----------------------------------------------------------------------------------


def test_a_shell_opens_where_the_world_stopped() -> None:
    asked = (
        "print('serving', [str(r.version) for r in devices['device-1'].runners])\n"
        "print('known', controller.record.query('SELECT COUNT(*) FROM devices')[0][0])\n"
        "print('same', loop is world.loop, network is world.network)\n"
    )
    arguments = ("replay", "0", "--until", "device-1:runner.serving", "--shell")
    shown = sim(*arguments, "--what", "runner", stdin=asked)
    assert shown.returncode == 0, shown.stderr
    assert "Stopped at " in shown.stderr
    assert "runner.serving" in shown.stderr
    assert "serving ['vision@" in shown.stdout
    assert f"known {len(case_of(0).devices)}" in shown.stdout
    assert "same True True" in shown.stdout


def test_a_replay_ends_with_what_was_broken() -> None:
    arguments = ["replay", "3", "--faults", "none", "--mutant", SOON, "--until", "EL-INV-6"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert "EL-INV-6 at " in shown.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("0", "--until", "device-1:"), "is no event"),
        (("0", "--faults", "1,x"), "is no list of numbers"),
        (("0", "--faults", "0,999"), "the first is 0"),
        (("0", "--faults", "absent.json"), "holds no list of faults"),
        (("0", "--mutant", "nobody"), "no mutant"),
    ],
)
def test_what_cannot_be_replayed_is_said(arguments: Sequence[str], says: str) -> None:
    shown = CliRunner().invoke(app, ["replay", *arguments])
    assert shown.exit_code == 2
    assert says in shown.output


def test_what_is_shown_is_what_was_asked_for() -> None:
    state = Seen(5.0, "device-1", "slot.state", {})
    came = Seen(5.0, "device-1", "message.delivered", {})
    assert Shown()(state)
    assert not Shown()(came)
    assert Shown(messages=True)(came)
    assert Shown(whats=("slot",))(state)
    assert Shown(whats=("message",))(came)
    assert not Shown(whats=("slo",))(state)
    assert not Shown(parts=("device-2",))(state)
    assert not Shown(from_s=5.1)(state)
    assert not Shown(until_s=4.9)(state)


def test_where_to_stop_is_an_event_a_law_or_a_second() -> None:
    state = Seen(5.0, "device-1", "slot.state", {})
    assert stop_at("slot.state")(state)
    assert stop_at("slot")(state)
    assert stop_at("device-1:slot.state")(state)
    assert not stop_at("device-2:slot.state")(state)
    assert not stop_at("EL-INV-1")(state)
    assert stop_at("5")(state)
    assert not stop_at("5.1")(state)
