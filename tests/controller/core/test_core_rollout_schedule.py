"""A rollout that keeps to times and sizes, to people's approval, and to who is kept out."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fleet import OLD, TARGET, TERMS, Fleet, notes, offered, withdrawn

from edgeloop_controller.core.rollout import (
    Evidence,
    MemberPhase,
    RolloutStatus,
    abort,
    approve,
    asks_again_at,
    hold,
    pause,
    release,
    roll_back,
    step,
)
from edgeloop_controller.core.schedule_terms import Schedule
from edgeloop_controller.errors import ConflictError


def scheduled(count: int, waves: str = "100%", **schedule: object) -> Fleet:
    fleet = Fleet(count, waves=waves)
    terms = TERMS.model_copy(update={"schedule": Schedule.model_validate(schedule)})
    fleet.spec = replace(fleet.spec, terms=terms)
    return fleet


def test_nothing_before_the_start() -> None:
    fleet = scheduled(3, starts_at=100.0)
    first = fleet.turn()
    assert (offered(first), first.waits_until) == ([], 100.0)
    assert first.state.verdict == "wave 1 of 1 waits for its start"
    assert len(offered(fleet.turn(100))) == 3


def test_a_wave_is_offered_at_its_pace_and_not_over_before() -> None:
    fleet = scheduled(5, "100%", pace_per_min=2)
    assert len(offered(fleet.turn())) == 2
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    waiting = fleet.turn(30)
    assert offered(waiting) == []
    assert waiting.waits_until == 61.0
    fleet.turn(15)
    assert fleet.state.verdict == "wave 1 of 1 is offered to 2 devices a minute"
    assert len(offered(fleet.turn(15))) == 2
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    assert len(offered(fleet.turn(60))) == 1
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn(11)
    assert fleet.turn(11).state.status is RolloutStatus.DONE


def test_a_soak_follows_the_last_commit_of_a_wave_that_is_spread_over_hours() -> None:
    fleet = scheduled(3, "2,100%", pace_per_min=0.5)
    fleet.turn()
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    assert len(offered(fleet.turn(120))) == 1
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn()
    assert fleet.turn(9).state.verdict == "wave 1 of 2 soaks for 10 s"
    assert fleet.turn(1).state.wave == 1


def test_a_site_keeps_most_of_its_devices_in_service() -> None:
    fleet = scheduled(4, max_unavailable="1")
    for n, name in enumerate(fleet.views):
        fleet.change(name, labels={"site": "ab"[n % 2]})
    first = offered(fleet.turn())
    assert sorted(fleet.views[name].labels["site"] for name in first) == ["a", "b"]
    fleet.commit(*first)
    assert len(offered(fleet.turn())) == 2


def test_offers_begin_in_maintenance_hours_only() -> None:
    fleet = scheduled(2, maintenance=["00:00-01:00"])
    fleet.utc_offset = lambda zone, at: 3600.0 if zone == "east" else 0.0
    fleet.change("d1", labels={"timezone": "east"})
    assert offered(fleet.turn()) == ["d0"]
    fleet.commit("d0")
    again = fleet.turn(7200)
    assert (offered(again), again.state.status) == ([], RolloutStatus.RUNNING)
    assert again.state.verdict == "wave 1 of 1 waits for maintenance hours"
    assert again.waits_until == 23 * 3600
    assert offered(fleet.turn(21 * 3600)) == ["d1"]


def test_an_overdue_canary_keeps_its_place_until_another_may_have_it() -> None:
    fleet = scheduled(2, "1,100%", maintenance=["00:00-00:01", "01:00-02:00"])
    (canary,) = offered(fleet.turn())
    for _ in range(2):
        late = fleet.turn(100)
        assert (withdrawn(late), late.waits_until) == ({}, 3600.0)
    (other,) = fleet.views.keys() - {canary}
    again = fleet.turn(3600)
    assert (list(withdrawn(again)), offered(again)) == ([canary], [other])


def test_who_is_offline_gets_it_in_maintenance_hours_too_and_holds_nothing_up() -> None:
    fleet = scheduled(2, maintenance=["00:00-01:00"])
    fleet.change("d1", online=False)
    fleet.turn()
    fleet.commit("d0")
    fleet.turn(11)
    assert fleet.turn(11).state.status is RolloutStatus.DONE
    fleet.change("d1", online=True)
    later = fleet.turn(7200)
    assert (offered(later), later.waits_until) == ([], 24 * 3600.0)
    assert offered(fleet.turn(17 * 3600)) == []
    assert offered(fleet.turn(5 * 3600)) == ["d1"]


def test_a_wave_waits_for_its_approval() -> None:
    fleet = scheduled(4, "1,100%", approve=[2, 1])
    assert offered(fleet.turn()) == []
    assert fleet.state.verdict == "wave 1 of 2 waits for approval of wave 1"
    fleet.apply(approve(fleet.state, 1, "ada"))
    (canary,) = offered(fleet.turn())
    fleet.commit(canary)
    fleet.turn()
    fleet.turn(11)
    assert fleet.state.verdict == "wave 1 of 2 waits for approval of wave 2"
    assert asks_again_at(fleet.spec, fleet.state, fleet.now + 1e4) is None
    fleet.apply(approve(fleet.state, 2, "ada"))
    assert len(offered(fleet.turn())) == 3
    with pytest.raises(ConflictError, match="wave 2 has begun already"):
        approve(fleet.state, 2, "ada")


def test_what_cannot_be_approved() -> None:
    fleet = scheduled(2, "1,100%", approve=[2])
    approved = approve(fleet.state, 2, "ada").state
    with pytest.raises(ConflictError, match="is approved already"):
        approve(approved, 2, "ada")
    with pytest.raises(ConflictError, match="nothing to approve"):
        approve(abort(fleet.state, "no", 0.0).state, 2, "ada")


def test_a_device_in_quarantine_is_neither_offered_nor_counted() -> None:
    fleet = scheduled(4, "50%")
    fleet.change("d0", quarantine="smoke")
    fleet.change("d1", quarantine="smoke")
    assert len(offered(fleet.turn())) == 1
    fleet.change("d0", quarantine="")
    assert len(offered(fleet.turn())) == 1
    assert "d1" not in fleet.state.members


def test_a_device_that_is_held_out_goes_back_and_takes_no_place() -> None:
    fleet = scheduled(3, "1,100%")
    (canary,) = offered(fleet.turn())
    held = hold(fleet.state, canary, "the line runs", fleet.now)
    assert withdrawn(held) == {canary: OLD.manifest_digest}
    fleet.apply(held)
    (other,) = offered(fleet.turn())
    assert other != canary
    with pytest.raises(ConflictError, match="held out already: the line runs"):
        hold(fleet.state, canary, "again", fleet.now)
    fleet.commit(other)
    fleet.turn()
    assert canary not in offered(fleet.turn(11))
    fleet.apply(release(fleet.state, canary))
    assert canary in offered(fleet.turn())
    with pytest.raises(ConflictError, match="is not held out"):
        release(fleet.state, canary)


def test_a_device_can_be_held_out_before_it_is_offered() -> None:
    fleet = scheduled(2)
    held = hold(fleet.state, "d0", "in use", 0.0)
    assert notes(held) == ["rollout.device_held"]
    fleet.apply(held)
    assert offered(fleet.turn()) == ["d1"]
    fleet.apply(release(fleet.state, "d0"))
    assert offered(fleet.turn()) == ["d0"]


def test_rolling_back_by_hand_takes_it_from_all_even_when_it_was_done() -> None:
    fleet = scheduled(2)
    fleet.turn()
    fleet.commit("d0", "d1")
    fleet.turn()
    assert fleet.turn(11).state.status is RolloutStatus.DONE
    back = roll_back(fleet.state, None, "smells", fleet.now)
    assert withdrawn(back) == {"d0": OLD.manifest_digest, "d1": OLD.manifest_digest}
    assert (back.state.status, back.state.verdict) == (RolloutStatus.HALTED, "smells")
    to = roll_back(fleet.state, "f" * 64, "smells", fleet.now)
    assert set(withdrawn(to).values()) == {"f" * 64}
    fleet.apply(back)
    assert fleet.turn().effects == ()
    with pytest.raises(ConflictError, match="nobody was offered"):
        roll_back(replace(fleet.state, status=RolloutStatus.QUEUED), None, "", 0.0)


def test_a_queued_rollout_offers_nothing_and_can_be_aborted() -> None:
    fleet = scheduled(2)
    fleet.state = replace(fleet.state, status=RolloutStatus.QUEUED)
    assert fleet.turn().effects == ()
    assert abort(fleet.state, "never mind", 0.0).state.status is RolloutStatus.ABORTED


def test_a_selector_for_the_old_version_reaches_the_whole_fleet() -> None:
    """Each device that committed stops matching; the shares must not shrink with it."""
    fleet = scheduled(8, "25%,100%")
    fleet.spec = replace(fleet.spec, selector="model.gait<2")
    assert len(offered(fleet.turn())) == 2
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn()
    assert len(offered(fleet.turn(11))) == 6
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn()
    assert fleet.turn(11).state.status is RolloutStatus.DONE
    assert len(fleet.names(MemberPhase.COMMITTED)) == 8


EVENTS = ("commit", "refuse", "offline", "online", "join", "move", "hold", "release", "approve")
story = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 90)), max_size=40)
schedules = st.builds(
    Schedule,
    starts_at=st.sampled_from([None, 40.0]),
    pace_per_min=st.sampled_from([None, 0.7, 2.0]),
    max_unavailable=st.sampled_from([None, "1", "50%"]),
    maintenance=st.sampled_from([(), ("00:00-00:02", "00:10-24:00")]),
    approve=st.sampled_from([(), (1,), (2, 3)]),
)


def happen(fleet: Fleet, event: str, number: int) -> None:
    names = sorted(fleet.views)
    name = names[number % len(names)]
    waiting = fleet.names(MemberPhase.OFFERED)
    try:
        if event == "commit" and waiting:
            fleet.commit(waiting[number % len(waiting)])
        elif event == "refuse" and waiting and number == 0:
            fleet.refuse(waiting[0], "crashed")
        elif event in ("offline", "online"):
            fleet.change(name, online=event == "online")
        elif event == "join":
            fleet.add(f"late{len(names)}", labels={"site": "ab"[number % 2]})
        elif event == "move":
            fleet.change(name, labels={"site": "ab"[number % 2], "away": "x" * (number % 3)})
        elif event == "hold":
            fleet.apply(hold(fleet.state, name, "by hand", fleet.now))
        elif event == "release":
            fleet.apply(release(fleet.state, name))
        elif event == "approve":
            fleet.apply(approve(fleet.state, 1 + number % 3, "ada"))
    except ConflictError:
        pass


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 12), st.sampled_from(["1,25%,100%", "100%", "2,50%"]), schedules, story)
def test_laws(count: int, waves: str, schedule: Schedule, events: list[tuple[str, int]]) -> None:
    fleet = scheduled(count, waves, **schedule.model_dump())
    at: list[float] = []
    for event, number in events:
        happen(fleet, event, number)
        result = fleet.turn(number)
        at += [fleet.now] * len(offered(result))
        if schedule.starts_at is not None and offered(result):
            assert fleet.now >= schedule.starts_at
        if schedule.maintenance and offered(result):
            assert not 120 <= fleet.now % 86400 < 600
        _keeps_pace(schedule, at)
        _keeps_sites(fleet, schedule, offered(result))
        if fleet.state.wave_started_at is not None:
            begun = set(range(1, fleet.state.wave + 2))
            assert begun & set(schedule.approve) <= fleet.state.approved
        _says_nothing_before_it_asks_again(fleet, result.waits_until)


def _keeps_pace(schedule: Schedule, at: list[float]) -> None:
    if schedule.pace_per_min is not None:
        most = max(1, int(schedule.pace_per_min))
        span_s = max(60.0, 60.0 / schedule.pace_per_min)
        for first, later in zip(at, at[most:], strict=False):
            assert later - first >= span_s - 1e-6


def _keeps_sites(fleet: Fleet, schedule: Schedule, fresh: list[str]) -> None:
    if schedule.max_unavailable is None:
        return
    for site in {fleet.views[name].labels.get("site") for name in fresh}:
        under_way = [
            m.device_id
            for m in fleet.state.members.values()
            if m.phase is MemberPhase.OFFERED
            and (m.offered_at or 0) + TERMS.deadline_s > fleet.now
            and fleet.views[m.device_id].labels.get("site") == site
        ]
        size = sum(view.labels.get("site") == site for view in fleet.views.values())
        assert len(under_way) <= schedule.unavailable_of(size)


def _says_nothing_before_it_asks_again(fleet: Fleet, waits_until: float | None) -> None:
    asks_at = asks_again_at(fleet.spec, fleet.state, fleet.now)
    times = [time for time in (asks_at, waits_until) if time is not None]
    latest = min(times, default=fleet.now + 1e6)
    views, evidence = list(fleet.views.values()), Evidence(fleet.evidence, fleet.pairs)
    at = (fleet.now + latest) / 2
    if fleet.now < at < latest:
        result = step(fleet.spec, fleet.state, views, evidence, at)
        assert (result.state, result.effects) == (fleet.state, ())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.sampled_from(["1,25%,100%", "100%"]), schedules, story)
def test_a_healthy_fleet_ends_and_leaves_nobody_behind(
    count: int, waves: str, schedule: Schedule, events: list[tuple[str, int]]
) -> None:
    fleet = scheduled(count, waves, **schedule.model_dump())
    for event, number in events:
        if event != "refuse":
            happen(fleet, event, number)
        fleet.turn(number)
    for number in (1, 2, 3):
        happen(fleet, "approve", number - 1)
    for name in sorted(fleet.views):
        fleet.change(name, online=True)
        if name in fleet.names(MemberPhase.HELD):
            fleet.apply(release(fleet.state, name))
    fleet.now = fleet.now - fleet.now % 86400 + 86400 + 600
    for _ in range(6 * (len(fleet.spec.waves) + len(fleet.views))):
        fleet.turn(61)
        fleet.commit(*fleet.names(MemberPhase.OFFERED))
    assert fleet.state.status is RolloutStatus.DONE
    assert {view.assigned_digest for view in fleet.views.values()} == {TARGET.manifest_digest}


def test_pausing_stops_offers_at_once() -> None:
    fleet = scheduled(5, pace_per_min=1)
    fleet.turn()
    fleet.apply(pause(fleet.state))
    assert offered(fleet.turn(3600)) == []
