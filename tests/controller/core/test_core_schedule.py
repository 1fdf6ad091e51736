"""When a rollout may offer: hours, pace, sites."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeloop_controller.core.rollout_types import (
    DeviceView,
    Member,
    MemberPhase,
    RolloutTerms,
)
from edgeloop_controller.core.schedule import WEEK_S, Chosen, Openings, closed_for_s, utc_everywhere
from edgeloop_controller.core.schedule_terms import WEEK_MIN, Hours, Schedule, parse_hours
from edgeloop_protocol.device_facts import UNKNOWN

MONDAY = datetime(2026, 11, 30, tzinfo=UTC).timestamp()


def device(name: str, *, online: bool = True, **labels: str) -> DeviceView:
    return DeviceView(name, labels, online, UNKNOWN, {}, True, None, None)


def offered(name: str, at: float) -> Member:
    return Member(name, 0, MemberPhase.OFFERED, offered_at=at)


def choose(
    schedule: Schedule,
    devices: Sequence[DeviceView],
    members: Sequence[Member] = (),
    now: float = MONDAY,
    places: int = 100,
    zones: object = None,
) -> Chosen:
    busy = {member.device_id for member in members}
    openings = Openings(
        RolloutTerms(schedule=schedule, deadline_s=100),
        members,
        devices,
        now,
        zones or utc_everywhere,  # type: ignore[arg-type]
    )
    return openings.choose([d for d in devices if d.id not in busy], places)


def ids(chosen: Chosen) -> list[str]:
    return [view.id for view in chosen.devices]


FLEET = [device(f"d{n}", site="north" if n % 2 else "south") for n in range(10)]


def test_without_a_schedule_places_decide() -> None:
    chosen = choose(Schedule(), FLEET, places=3)
    assert (ids(chosen), chosen.kept, chosen.waits_until) == (["d0", "d1", "d2"], "", None)


def test_not_before_its_start() -> None:
    schedule = Schedule(starts_at=MONDAY + 10)
    early = choose(schedule, FLEET)
    assert (ids(early), early.kept, early.waits_until) == ([], "waits for its start", MONDAY + 10)
    assert len(ids(choose(schedule, FLEET, now=MONDAY + 10))) == 10


def test_pace_counts_any_minute() -> None:
    schedule = Schedule(pace_per_min=3)
    first = choose(schedule, FLEET)
    assert ids(first) == ["d0", "d1", "d2"]
    assert (first.kept, first.waits_until) == ("is offered to 3 devices a minute", MONDAY + 60)
    members = [offered("d0", MONDAY - 59), offered("d1", MONDAY - 10)]
    later = choose(schedule, FLEET, members)
    assert (ids(later), later.waits_until) == (["d2"], MONDAY + 1)
    assert ids(choose(schedule, FLEET, members, now=MONDAY + 1)) == ["d2", "d3"]


def test_a_pace_below_one_a_minute() -> None:
    schedule = Schedule(pace_per_min=0.5)
    members = [offered("d0", MONDAY - 119)]
    waiting = choose(schedule, FLEET, members)
    assert (ids(waiting), waiting.waits_until) == ([], MONDAY + 1)
    assert ids(choose(schedule, FLEET, members, now=MONDAY + 1)) == ["d1"]


def test_a_site_has_so_many_under_way() -> None:
    schedule = Schedule(max_unavailable="2")
    members = [offered("d1", MONDAY)]
    chosen = choose(schedule, FLEET, members)
    assert ids(chosen) == ["d0", "d2", "d3"]
    assert (chosen.kept, chosen.waits_until) == ("waits for other devices of site south", None)
    # Past its deadline a device is not under way any more, but lost.
    assert "d5" in ids(choose(schedule, FLEET, [offered("d1", MONDAY - 100)]))


def test_a_share_of_a_site_is_at_least_one_device() -> None:
    assert ids(choose(Schedule(max_unavailable="40%"), FLEET)) == ["d0", "d1", "d2", "d3"]
    assert ids(choose(Schedule(max_unavailable="1%"), FLEET)) == ["d0", "d1"]
    nowhere = [device("a"), device("b")]
    chosen = choose(Schedule(max_unavailable="1"), nowhere)
    assert (ids(chosen), chosen.kept) == (["a"], "waits for other devices of no site")


def test_hours_are_those_of_the_devices_own_zone() -> None:
    def utc_offset(zone: str, at: float) -> float:
        shift = datetime.fromtimestamp(at, ZoneInfo(zone or "UTC")).utcoffset()
        assert shift is not None
        return shift.total_seconds()

    fleet = [device("utc"), device("tokyo", timezone="Asia/Tokyo"), device("off", online=False)]
    night = Schedule(maintenance=("01:00-05:00",))
    at_2 = choose(night, fleet, now=MONDAY + 2 * 3600, zones=utc_offset)
    assert ids(at_2) == ["utc"]
    assert at_2.kept == "waits for maintenance hours"
    # 01:00 in Tokyo is 16:00 UTC of the day before.
    assert at_2.waits_until == MONDAY + 16 * 3600
    assert ids(choose(night, fleet, now=MONDAY + 16 * 3600, zones=utc_offset)) == ["tokyo"]


def test_what_keeps_a_wave_is_said_the_same_although_hours_close() -> None:
    hours = ("00:00-00:02",)
    paced = Schedule(pace_per_min=0.5, maintenance=hours)
    members = [offered("d0", MONDAY + 60)]
    for now in (MONDAY + 61, MONDAY + 150):
        found = choose(paced, FLEET, members, now=now)
        assert (ids(found), found.waits_until) == ([], MONDAY + 180)
        assert found.kept == "is offered to 0.5 devices a minute"
    by_site = Schedule(max_unavailable="1", maintenance=hours)
    busy = [offered("d0", MONDAY + 60), offered("d1", MONDAY + 60)]
    for now in (MONDAY + 61, MONDAY + 150):
        found = choose(by_site, FLEET, busy, now=now)
        assert found.kept == "waits for other devices of site south"


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("Mon 00:00-24:00", [Hours(0, 1440)]),
        ("Tue 22:00-05:00", [Hours(1440 + 1320, 420)]),
        ("Sat,Sun 08:00-18:00", [Hours(5 * 1440 + 480, 600), Hours(6 * 1440 + 480, 600)]),
        ("Fri-Sun 01:00-02:00", [Hours(day * 1440 + 60, 60) for day in (4, 5, 6)]),
        ("Sun-Mon 01:00-02:00", [Hours(60, 60), Hours(6 * 1440 + 60, 60)]),
        ("23:00-24:00", [Hours(day * 1440 + 1380, 60) for day in range(7)]),
    ],
)
def test_hours_as_they_are_written(text: str, hours: list[Hours]) -> None:
    assert list(parse_hours(text)) == hours


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("22-05", "are no hours: write"),
        ("Mo 22:00-05:00", "'Mo' is no day; they are Mon, Tue"),
        ("Mon- 22:00-05:00", "is no day"),
        ("25:00-05:00", "25:00 is no time of a day"),
        ("22:60-23:00", "22:60 is no time of a day"),
        ("22:00-22:00", "no time at all; the whole day is 00:00-24:00"),
        ("24:00-05:00", "no time at all"),
    ],
)
def test_hours_that_are_none(text: str, wanted: str) -> None:
    with pytest.raises(ValidationError, match=wanted):
        Schedule(maintenance=(text,))


@pytest.mark.parametrize("share", ["0", "101%", "0%", "-1", "x", "1.5"])
def test_a_share_that_is_none(share: str) -> None:
    with pytest.raises(ValidationError, match="neither a count nor a share"):
        Schedule(max_unavailable=share)


windows = st.lists(
    st.builds(Hours, st.integers(0, WEEK_MIN - 1), st.integers(1, 1440)), min_size=1, max_size=4
)


@given(windows, st.integers(0, int(WEEK_S) - 1))
def test_hours_begin_when_they_were_said_to(hours: list[Hours], second: int) -> None:
    closed = closed_for_s(hours, second)
    assert closed_for_s(hours, (second + closed) % WEEK_S) == 0
    if closed:
        assert closed_for_s(hours, (second + closed - 1) % WEEK_S) == 1
