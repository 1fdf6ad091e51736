"""A plan says what the engine would do."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fleet import TARGET, TERMS, UNFIT, Fleet, offered

from edgeloop_controller.core import rollout_plan
from edgeloop_controller.core.rollout import MemberPhase, RolloutStatus
from edgeloop_controller.core.rollout_plan import Plan, plan
from edgeloop_controller.core.schedule_terms import Schedule
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import SlotReported


def scheduled(count: int, waves: str = "1,100%", **schedule: object) -> Fleet:
    fleet = Fleet(count, waves=waves)
    terms = TERMS.model_copy(update={"schedule": Schedule.model_validate(schedule)})
    fleet.spec = replace(fleet.spec, terms=terms)
    return fleet


def planned(fleet: Fleet, install_s: float = 20.0) -> Plan:
    return plan(fleet.spec, fleet.views, fleet.now, install_s, fleet.utc_offset)


def test_waves_devices_and_times() -> None:
    fleet = scheduled(10, "1,50%,100%")
    found = planned(fleet)
    assert [len(wave.devices) for wave in found.waves] == [1, 4, 5]
    # 20 s to install and 10 s of soak a wave.
    assert [(wave.begins_at, wave.ends_at) for wave in found.waves] == [(0, 30), (30, 60), (60, 90)]
    assert (found.matching, found.ends_at, found.waits, found.later) == (10, 90.0, "", ())
    assert offered(fleet.turn()) == list(found.waves[0].devices)


def test_a_probation_is_the_shortest_install() -> None:
    fleet = scheduled(1, "100%")
    assert planned(fleet, 1.0).ends_at == TERMS.probation.min_s + TERMS.soak_s


def test_who_cannot_and_why() -> None:
    fleet = scheduled(6, "100%")
    fleet.change("d0", inventory=UNFIT)
    fleet.change("d1", inventory=UNFIT)
    fleet.change("d2", quarantine="smoke")
    fleet.change("d3", busy_with=9)
    fleet.change("d4", online=False)
    found = planned(fleet)
    assert {cause.cause: cause.devices for cause in found.cannot} == {
        "wrong architecture: the device is armv7l, the version is for x86_64": ("d0", "d1"),
        "in quarantine: smoke": ("d2",),
        "held by rollout 9": ("d3",),
    }
    assert sorted(found.waves[0].devices) == ["d4", "d5"]


def test_who_is_offline_in_maintenance_hours_gets_it_later() -> None:
    fleet = scheduled(2, "100%", maintenance=["00:00-24:00"])
    fleet.change("d1", online=False)
    found = planned(fleet)
    assert (found.waves[0].devices, found.later) == (("d0",), ("d1",))


def test_who_has_it_already() -> None:
    fleet = scheduled(2, "100%")
    slot = SlotReported(slot="main", state=SlotState.COMMITTED, champion=TARGET)
    fleet.change("d1", slots={"main": slot})
    assert planned(fleet).has_it == ("d1",)


def test_a_refusal_of_an_earlier_offer_is_no_answer() -> None:
    fleet = scheduled(2, "100%")
    fleet.refuse("d0", "withdrawn")
    found = planned(fleet)
    assert (found.ends_at, found.waits) == (30.0, "")


def test_pace_start_and_hours_take_their_time() -> None:
    paced = planned(scheduled(10, "100%", pace_per_min=2))
    assert paced.ends_at is not None
    assert 270 <= paced.ends_at <= 285
    late = planned(scheduled(1, "100%", starts_at=1000.0))
    assert (late.waves[0].begins_at, late.ends_at) == (1000.0, 1030.0)
    night = planned(scheduled(4, "1,100%", maintenance=["02:00-02:01"]))
    assert [round(wave.begins_at / 3600) for wave in night.waves] == [2, 2]
    slow = planned(scheduled(4, "1,100%", maintenance=["02:00-02:01"]), 80.0)
    assert [round(wave.begins_at / 3600) for wave in slow.waves] == [2, 26]


def test_what_does_not_end_says_where_it_stays() -> None:
    fleet = scheduled(1, "100%")
    fleet.change("d0", busy_with=3)
    found = planned(fleet)
    assert (found.waves, found.ends_at) == ((), None)
    assert found.waits == "wave 1 of 1 waits for a device that is online and free"


def test_a_plan_that_is_too_long_says_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_plan, "LOOKS_MAX", 20 * 100)
    found = planned(scheduled(100, "100%", pace_per_min=1))
    assert found.is_cut_short
    assert found.ends_at == 100 * 60
    assert 5 < len(found.waves[0].devices) < 30
    assert not planned(scheduled(10, "100%", pace_per_min=1)).is_cut_short


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.sampled_from(["1,25%,100%", "100%", "2,50%"]),
    st.builds(
        Schedule,
        pace_per_min=st.sampled_from([None, 3.0]),
        max_unavailable=st.sampled_from([None, "1", "50%"]),
    ),
)
def test_a_healthy_rollout_goes_as_planned(count: int, waves: str, schedule: Schedule) -> None:
    fleet = scheduled(count, waves, **schedule.model_dump())
    found = planned(fleet)
    assert found.ends_at is not None
    waiting: dict[str, float] = {}
    while fleet.state.status is RolloutStatus.RUNNING and fleet.now < 2 * found.ends_at + 60:
        fleet.commit(*(name for name, at in waiting.items() if at <= fleet.now))
        waiting = {name: at for name, at in waiting.items() if at > fleet.now}
        waiting |= dict.fromkeys(offered(fleet.turn()), fleet.now + 20)
    assert fleet.state.status is RolloutStatus.DONE
    assert {m.device_id for m in fleet.state.members.values()} == {
        name for wave in found.waves for name in wave.devices
    }
    assert fleet.names(MemberPhase.COMMITTED)
    assert found.ends_at <= fleet.now <= found.ends_at * 1.1 + 20
