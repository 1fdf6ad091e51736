"""The rollout engine, transition by transition, and its laws over random fleets."""

from dataclasses import replace
from math import nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fleet import (
    FIT,
    OLD,
    TARGET,
    TERMS,
    UNFIT,
    Fleet,
    notes,
    offered,
    withdrawn,
)

from edgeloop_controller.core.rollout import (
    Evidence,
    LabelledPair,
    MemberPhase,
    Note,
    RolloutStatus,
    Step,
    abort,
    asks_again_at,
    pause,
    resume,
    step,
)
from edgeloop_controller.core.waves import bound
from edgeloop_controller.errors import ConflictError


def test_the_first_wave_offers_one_device_and_then_waits_for_it() -> None:
    fleet = Fleet(10)
    first = fleet.turn()
    assert len(offered(first)) == 1
    assert notes(first) == ["rollout.wave_started"]
    second = fleet.turn()
    assert second.effects == ()
    assert second.state.verdict == f"wave 1 of 3 waits for {offered(first)[0]}"


def test_a_wave_opens_after_commit_comparison_and_soak() -> None:
    fleet = Fleet(10)
    (canary,) = offered(fleet.turn())
    fleet.commit(canary, compared=30)
    assert fleet.turn().state.verdict == "wave 1 of 3 has compared 30 of 50 examples"
    fleet.commit(canary, compared=30)
    assert fleet.turn().state.verdict == "wave 1 of 3 soaks for 10 s"
    result = fleet.turn(10)
    assert result.state.wave == 1
    assert len(offered(result)) == 2  # 25 % of 10, rounded up, with the canary


def test_what_cannot_be_compared_holds_a_wave_up_until_its_deadline() -> None:
    """The old version answers nothing in shadow."""
    fleet = Fleet(2, waves="1,100%")
    (canary,) = offered(fleet.turn())
    fleet.commit(canary, compared=0)
    fleet.turn(0)
    assert fleet.turn(99).state.verdict == "wave 1 of 2 has compared 0 of 50 examples"
    result = fleet.turn(1)
    assert [e.detail for e in result.effects if isinstance(e, Note)] == [
        "wave 1 of 2 has compared 0 of 50 examples in 100 s; the other gates hold",
        "wave 2 of 2",
    ]
    (other,) = offered(result)
    assert result.state.verdict == (
        f"wave 2 of 2 waits for {other}; the rollout has compared 0 of 50 examples"
    )
    fleet.commit(other, compared=20)
    fleet.turn(0)
    assert fleet.turn(99).state.verdict == "wave 2 of 2 has compared 20 of 50 examples"
    result = fleet.turn(1)
    assert result.state.status is RolloutStatus.DONE
    assert result.state.verdict == (
        "2 of 2 matching devices run gait@2; the rollout has compared 20 of 50 examples"
    )
    assert notes(result) == ["rollout.not_compared", "rollout.done"]


def test_it_ends_when_all_have_committed() -> None:
    fleet = Fleet(10)
    fleet.to_wave(2)
    fleet.turn()
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    result = fleet.turn(11)
    assert result.state.status is RolloutStatus.DONE
    assert result.state.verdict == "10 of 10 matching devices run gait@2"
    assert notes(result)[-1] == "rollout.done"


def test_first_installs_need_no_comparison() -> None:
    fleet = Fleet(3, waves="1,100%", old=None)
    (canary,) = offered(fleet.turn())
    fleet.commit(canary)
    fleet.turn(0)
    assert len(offered(fleet.turn(11))) == 2


def test_a_soak_begins_when_the_last_device_has_committed() -> None:
    """Time that a device spent downloading is no time spent with the version."""
    fleet = Fleet(3, waves="1,100%")
    (canary,) = offered(fleet.turn())
    fleet.turn(50)
    fleet.commit(canary)
    assert fleet.turn(1).state.verdict == "wave 1 of 2 soaks for 10 s"
    assert offered(fleet.turn(9)) == []
    assert len(offered(fleet.turn(1))) == 2


def test_a_failed_canary_halts_and_everyone_goes_back() -> None:
    fleet = Fleet(10)
    (canary,) = offered(fleet.turn())
    fleet.refuse(canary, "output has NaN")
    result = fleet.turn()
    assert result.state.status is RolloutStatus.HALTED
    assert withdrawn(result) == {canary: OLD.manifest_digest}
    assert result.state.members[canary].phase is MemberPhase.FAILED
    assert "output has NaN" in result.state.verdict
    assert fleet.turn().effects == ()


def test_a_refusal_from_before_the_offer_is_no_answer_to_it() -> None:
    fleet = Fleet(1)
    fleet.turn()
    fleet.refuse("d0", "crashed")
    fleet.change("d0", has_seen_offer=False)
    assert fleet.turn().effects == ()
    assert fleet.names(MemberPhase.OFFERED) == ["d0"]
    fleet.change("d0", has_seen_offer=True)
    assert fleet.turn().state.status is RolloutStatus.HALTED


def test_disagreement_halts_and_committed_members_go_back() -> None:
    fleet = Fleet(10)
    (canary,) = offered(fleet.turn())
    fleet.commit(canary, compared=60, disagreements=58)
    result = fleet.turn()
    assert result.state.status is RolloutStatus.HALTED
    assert withdrawn(result) == {canary: OLD.manifest_digest}
    assert result.state.members[canary].phase is MemberPhase.WITHDRAWN
    assert "the bound is 50%" in result.state.verdict
    assert [verdict.gate for verdict in result.verdicts if verdict.halted] == ["disagreement"]
    assert fleet.turn().verdicts == (), "a halted rollout asks no gate"


def test_late_labels_halt_a_later_wave() -> None:
    fleet = Fleet(10)
    fleet.to_wave(1)
    fleet.pairs += [LabelledPair("d0", target_correct=False, shadow_correct=True)] * 30
    result = fleet.turn()
    assert result.state.status is RolloutStatus.HALTED
    assert set(withdrawn(result)) >= set(offered(result))
    assert len(withdrawn(result)) == 3


def test_a_device_that_refused_its_assignment_goes_back_to_what_it_runs() -> None:
    fleet = Fleet(1)
    fleet.change("d0", assigned_digest="f" * 64)
    fleet.turn()
    assert fleet.state.members["d0"].before_digest == OLD.manifest_digest


def test_offline_devices_take_no_place_before_the_last_wave() -> None:
    fleet = Fleet(4, waves="2,100%")
    for name in ("d0", "d1", "d2"):
        fleet.change(name, online=False)
    assert offered(fleet.turn()) == ["d3"]
    fleet.commit("d3")
    fleet.turn(0)
    assert sorted(offered(fleet.turn(11))) == ["d0", "d1", "d2"]
    assert fleet.turn(11).state.status is RolloutStatus.DONE


def test_a_canary_that_goes_dark_gives_its_place_back_at_the_deadline() -> None:
    fleet = Fleet(3)
    (canary,) = offered(fleet.turn())
    fleet.change(canary, online=False)
    assert fleet.turn(99).effects == ()
    result = fleet.turn(1)
    assert withdrawn(result) == {canary: OLD.manifest_digest}
    assert len(offered(result)) == 1
    assert canary not in offered(result)


def test_the_only_device_keeps_its_place_however_late_it_is() -> None:
    fleet = Fleet(1, waves="1,100%")
    fleet.turn()
    assert fleet.turn(200).effects == ()
    fleet.commit("d0")
    fleet.turn(11)
    assert fleet.turn(11).state.status is RolloutStatus.DONE


def test_an_overdue_member_no_longer_holds_a_wave_up() -> None:
    fleet = Fleet(10, waves="2,100%")
    lost, good = offered(fleet.turn())
    fleet.change(lost, online=False)
    fleet.commit(good)
    assert fleet.turn(50).state.wave == 0
    assert fleet.turn(60).state.wave == 1


def test_new_devices_join_within_the_bound() -> None:
    fleet = Fleet(4, waves="50%,100%")
    assert len(offered(fleet.turn())) == 2
    fleet.add("late0")
    fleet.add("late1")
    assert len(offered(fleet.turn())) == 1


def test_a_done_rollout_offers_to_devices_that_come_later() -> None:
    fleet = Fleet(2, waves="100%")
    fleet.turn()
    fleet.commit("d0", "d1")
    fleet.turn(0)
    assert fleet.turn(11).state.status is RolloutStatus.DONE
    fleet.add("late")
    assert offered(fleet.turn()) == ["late"]
    assert fleet.turn().effects == ()


def test_ineligible_devices_are_named_and_never_counted() -> None:
    fleet = Fleet(4, waves="50%,100%")
    for name in ("d0", "d1"):
        fleet.change(name, inventory=UNFIT)
    result = fleet.turn()
    assert len(offered(result)) == 1  # 50 % of the two that fit
    assert fleet.state.members["d0"].phase is MemberPhase.INELIGIBLE
    assert "armv7l" in fleet.state.members["d0"].cause
    fleet.change("d0", inventory=FIT)
    assert len(offered(fleet.turn())) == 1  # 50 % of three


def test_a_device_held_by_another_rollout_is_not_offered() -> None:
    fleet = Fleet(2, waves="100%")
    fleet.change("d0", busy_with=3)
    assert offered(fleet.turn()) == ["d1"]
    fleet.change("d0", busy_with=None)
    assert offered(fleet.turn()) == ["d0"]


def test_devices_that_do_not_match_are_not_offered() -> None:
    fleet = Fleet(2, waves="100%")
    fleet.spec = replace(fleet.spec, selector="device=d1")
    assert offered(fleet.turn()) == ["d1"]


def test_pause_resume_and_abort() -> None:
    fleet = Fleet(4, waves="2,100%")
    settled, unsettled = offered(fleet.turn())
    fleet.state = pause(fleet.state).state
    fleet.commit(settled)
    assert fleet.turn(20).effects == ()
    assert fleet.state.members[settled].phase is MemberPhase.COMMITTED
    with pytest.raises(ConflictError, match="is paused; it must be running"):
        pause(fleet.state)
    fleet.state = resume(fleet.state).state
    ended = abort(fleet.state, "asked to", fleet.now)
    assert withdrawn(ended) == {unsettled: OLD.manifest_digest}
    assert ended.state.members[settled].phase is MemberPhase.COMMITTED
    with pytest.raises(ConflictError):
        resume(ended.state)


def test_a_paused_rollout_still_halts() -> None:
    fleet = Fleet(4)
    (canary,) = offered(fleet.turn())
    fleet.state = pause(fleet.state).state
    fleet.refuse(canary, "crashed")
    assert fleet.turn().state.status is RolloutStatus.HALTED


EVENTS = ("commit", "refuse", "offline", "online", "join", "pause", "resume", "unfit", "wait")
story = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 30)), max_size=40)


def happen(fleet: Fleet, event: str, number: int) -> None:
    names = sorted(fleet.views)
    name = names[number % len(names)]
    waiting = fleet.names(MemberPhase.OFFERED)
    if event == "commit" and waiting:
        fleet.commit(waiting[number % len(waiting)])
    elif event == "refuse" and waiting and number == 0:
        fleet.refuse(waiting[0], "crashed")
    elif event in ("offline", "online"):
        fleet.change(name, online=event == "online")
    elif event == "join":
        fleet.add(f"late{len(names)}", online=number % 2 == 0)
    elif event == "unfit" and name not in fleet.state.members:
        fleet.change(name, inventory=UNFIT)
    elif event == "pause" and fleet.state.status is RolloutStatus.RUNNING:
        fleet.state = pause(fleet.state).state
    elif event == "resume" and fleet.state.status is RolloutStatus.PAUSED:
        fleet.state = resume(fleet.state).state


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 12),
    st.sampled_from(["1,25%,100%", "100%", "2,50%", "1,3"]),
    story,
    st.sampled_from([0, 10]),
)
def test_laws(count: int, waves: str, events: list[tuple[str, int]], soak_s: float) -> None:
    fleet = Fleet(count, waves=waves)
    fleet.spec = replace(fleet.spec, terms=TERMS.model_copy(update={"soak_s": soak_s}))
    for event, number in events:
        happen(fleet, event, number)
        before = fleet.state
        result = fleet.turn(number)
        if before.status not in (RolloutStatus.RUNNING, RolloutStatus.DONE):
            assert offered(result) == []
        phases = [member.phase for member in fleet.state.members.values()]
        fit = len(fleet.views) - phases.count(MemberPhase.INELIGIBLE)
        exposed = [
            name
            for name, view in fleet.views.items()
            if view.assigned_digest == TARGET.manifest_digest
        ]
        reached = fleet.spec.waves[: fleet.state.wave + 1]
        if offered(result):  # the fleet itself may shrink below what it already holds
            assert len(exposed) <= max(bound(wave, fit) for wave in reached)
        assert len(set(offered(result))) == len(offered(result))
        if fleet.state.status is RolloutStatus.HALTED:
            assert exposed == []
        again = step(
            fleet.spec,
            fleet.state,
            list(fleet.views.values()),
            Evidence(fleet.evidence, fleet.pairs),
            fleet.now,
        )
        assert again.effects == ()
        assert again.state == fleet.state
        _says_nothing_before_it_asks_again(fleet)


def _says_nothing_before_it_asks_again(fleet: Fleet) -> None:
    until = asks_again_at(fleet.spec, fleet.state, fleet.now)
    latest = nextafter(until, 0) if until is not None else fleet.now + 1e6
    evidence = Evidence(fleet.evidence, fleet.pairs)
    for at in (latest, (fleet.now + latest) / 2):
        result = step(fleet.spec, fleet.state, list(fleet.views.values()), evidence, at)
        assert result == Step(fleet.state, ())


def test_a_rollout_asks_again_when_its_soak_ends_or_a_deadline_passes() -> None:
    fleet = Fleet(4)
    assert asks_again_at(fleet.spec, fleet.state, 0.0) is None
    (canary,) = offered(fleet.turn())
    assert asks_again_at(fleet.spec, fleet.state, 50.0) == fleet.now + TERMS.deadline_s
    fleet.commit(canary)
    fleet.turn(50)
    assert asks_again_at(fleet.spec, fleet.state, fleet.now) == fleet.now + TERMS.soak_s
    fleet.state = pause(fleet.state).state
    assert asks_again_at(fleet.spec, fleet.state, fleet.now) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.sampled_from(["1,25%,100%", "100%", "2,50%"]), story)
def test_a_healthy_fleet_always_ends(count: int, waves: str, events: list[tuple[str, int]]) -> None:
    fleet = Fleet(count, waves=waves)
    for event, number in events:
        if event not in ("refuse", "unfit"):
            happen(fleet, event, number)
        fleet.turn(number)
    if fleet.state.status is RolloutStatus.PAUSED:
        fleet.state = resume(fleet.state).state
    for name in fleet.views:
        fleet.change(name, online=True)
    for _ in range(3 * (len(fleet.spec.waves) + len(fleet.views))):
        fleet.turn(11)
        fleet.commit(*fleet.names(MemberPhase.OFFERED))
    assert fleet.state.status is RolloutStatus.DONE


def test_where_labels_come_a_wave_waits_for_enough_but_a_lone_canary_does_not() -> None:
    fleet = Fleet(40, waves="1,25%,100%")
    fleet.spec = replace(fleet.spec, terms=TERMS.model_copy(update={"min_labelled": 30}))
    fleet.turn()
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.pairs += [LabelledPair("d0", target_correct=True, shadow_correct=True)] * 20
    fleet.turn()
    fleet.turn(11)
    assert fleet.state.wave == 1
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn()
    fleet.turn(11)
    assert fleet.state.verdict == "wave 2 of 3 has 20 of 30 labelled examples"
    fleet.pairs += [LabelledPair("d0", target_correct=True, shadow_correct=True)] * 10
    fleet.turn()
    assert fleet.state.wave == 2
