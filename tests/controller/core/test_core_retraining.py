"""When a policy starts a run, and what it waits for."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from edgeloop_controller.core.retraining import Policy, PolicyView, Start, Wait, decide

QUIET = PolicyView(
    running=False,
    last_ended_at=None,
    world_changed_at=None,
    labels_since_alarm=0,
    labels_since_last_run=0,
    devices_on_champion=10,
)
DRIFTED = replace(QUIET, world_changed_at=100.0, labels_since_alarm=120, labels_since_last_run=120)
NOW = 1000.0


def policy(**changes: Any) -> Policy:
    return Policy(**{"name": "p", "model": "gait", "script": "train.py", **changes})


def test_drift_with_enough_labels_starts() -> None:
    decision = decide(policy(), DRIFTED, NOW)
    assert decision == Start("drift", "the world changed, and 120 labels came since the alarm")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"running": True}, "under way"),
        ({"devices_on_champion": 0}, "no device runs gait"),
        ({"last_ended_at": 500.0}, "ended less than 600 s ago"),
        ({"world_changed_at": None}, "no world_changed alarm"),
        ({"labels_since_alarm": 12}, "12 of 100 labels since the alarm"),
        (
            {"last_ended_at": 300.0, "labels_since_last_run": 7},
            "7 of 100 labels since the last run",
        ),
    ],
)
def test_what_it_waits_for(changes: dict[str, Any], says: str) -> None:
    decision = decide(policy(), replace(DRIFTED, **changes), NOW)
    assert isinstance(decision, Wait)
    assert says in decision.why


def test_an_answered_alarm_starts_again_with_as_many_new_labels() -> None:
    view = replace(DRIFTED, last_ended_at=300.0, labels_since_last_run=100)
    assert isinstance(decide(policy(), view, NOW), Start)


def test_a_run_before_the_alarm_does_not_answer_it() -> None:
    view = replace(DRIFTED, last_ended_at=50.0, labels_since_last_run=7)
    assert isinstance(decide(policy(), view, NOW), Start)


def test_schedule() -> None:
    weekly = policy(on=["schedule"], every_s=700, cooldown_s=0, min_labels=0)
    assert decide(weekly, QUIET, NOW) == Start("schedule", "due every 700 s")
    assert isinstance(decide(weekly, replace(QUIET, last_ended_at=400.0), NOW), Wait)
    assert isinstance(decide(weekly, replace(QUIET, last_ended_at=300.0), NOW), Start)
    with pytest.raises(ValidationError, match="needs every_s"):
        policy(on=["schedule"])


def test_labels() -> None:
    by_count = policy(on=["labels"], min_labels=0)
    assert isinstance(decide(by_count, QUIET, NOW), Wait)
    assert isinstance(decide(by_count, replace(QUIET, labels_since_last_run=1), NOW), Start)


def test_any_trigger_is_enough_and_all_reasons_are_given() -> None:
    either = policy(on=["drift", "labels"], min_labels=50)
    started = decide(either, replace(QUIET, labels_since_last_run=60), NOW)
    assert isinstance(started, Start)
    assert started.trigger == "labels"
    waiting = decide(either, QUIET, NOW)
    assert waiting == Wait("no world_changed alarm is open; 0 of 50 labels since the last run")
