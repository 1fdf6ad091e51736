"""Alarms ring late and stop late, once each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_controller.core.alarms import AlarmKey, Change, Streak, advance
from edgeloop_controller.core.drift import Cause, Finding, Scope, Score
from edgeloop_controller.core.drift_scores import Observed
from edgeloop_protocol.manifest import Manifest

NOTHING = Observed(100, np.zeros(2))
SCORE = Score(1.0, (0.0, 0.0), NOTHING, NOTHING, Manifest.model_construct())
FLEET = AlarmKey(Scope.FLEET, "*", Cause.WORLD_CHANGED)


def finding(cause: Cause | None, scope: Scope = Scope.FLEET, key: str = "*") -> Finding:
    return Finding(scope, key, cause, SCORE, 1.0, 0.5, None, "", {})


class Watch:
    def __init__(self, raise_after: int = 2, clear_after: int = 3) -> None:
        self.terms = (raise_after, clear_after)
        self.open: set[AlarmKey] = set()
        self.streaks: dict[AlarmKey, Streak] = {}

    def see(self, *findings: Finding) -> Change:
        change = advance(self.open, self.streaks, findings, *self.terms)
        self.streaks = dict(change.streaks)
        raised = {AlarmKey(f.scope, f.key, f.cause) for f in change.raised if f.cause}
        assert not raised & self.open
        assert set(change.cleared) <= self.open
        self.open = (self.open | raised) - set(change.cleared)
        return change


def test_raises_after_enough_and_clears_after_enough() -> None:
    watch = Watch()
    story = [Cause.WORLD_CHANGED] * 4 + [None] * 4
    rings = [bool(watch.see(finding(cause)).raised) for cause in story[:4]]
    assert rings == [False, True, False, False]
    stops = [bool(watch.see(finding(cause)).cleared) for cause in story[4:]]
    assert stops == [False, False, True, False]
    assert watch.streaks == {}


def test_an_interruption_starts_over() -> None:
    watch = Watch()
    for cause in (Cause.WORLD_CHANGED, None, Cause.WORLD_CHANGED, None):
        watch.see(finding(cause))
    assert watch.open == set()


def test_a_scope_that_is_not_judged_keeps_its_streak() -> None:
    watch = Watch()
    watch.see(finding(Cause.WORLD_CHANGED))
    assert watch.see().raised == ()
    assert len(watch.see(finding(Cause.WORLD_CHANGED)).raised) == 1
    for _ in range(5):
        watch.see()
    assert watch.open == {FLEET}


def test_another_cause_clears_the_first() -> None:
    watch = Watch(raise_after=1, clear_after=1)
    watch.see(finding(Cause.DEVICE_DIFFERS, Scope.DEVICE, "d0"))
    change = watch.see(finding(Cause.SENSOR_FAULT, Scope.DEVICE, "d0"))
    assert [f.cause for f in change.raised] == [Cause.SENSOR_FAULT]
    assert change.cleared == (AlarmKey(Scope.DEVICE, "d0", Cause.DEVICE_DIFFERS),)


def test_a_restart_with_empty_streaks_only_delays() -> None:
    watch = Watch()
    watch.see(finding(Cause.WORLD_CHANGED))
    watch.streaks = {}
    assert watch.see(finding(Cause.WORLD_CHANGED)).raised == ()
    assert len(watch.see(finding(Cause.WORLD_CHANGED)).raised) == 1


@given(st.lists(st.sampled_from([Cause.WORLD_CHANGED, None, "unjudged"]), max_size=40))
def test_an_alarm_is_open_only_between_a_raise_and_a_clear(story: list[Cause | str | None]) -> None:
    watch, found_in_a_row, absent_in_a_row, is_open = Watch(), 0, 0, False
    for cause in story:
        if cause == "unjudged":
            watch.see()
        else:
            watch.see(finding(cause))  # type: ignore[arg-type]
            found_in_a_row = found_in_a_row + 1 if cause else 0
            absent_in_a_row = 0 if cause else absent_in_a_row + 1
            is_open = found_in_a_row >= 2 or (is_open and absent_in_a_row < 3)
        assert (FLEET in watch.open) is is_open
