"""The shadow phase before the first wave: who runs it, what it must show, how it ends."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fleet import OLD, OWN_CHALLENGER, TARGET, UNFIT, Fleet, notes, offered

from edgeloop_controller.core.rollout import (
    MemberPhase,
    RolloutStatus,
    ShadowOff,
    ShadowOn,
    ShadowSeen,
    Step,
    abort,
    approve,
    asks_again_at,
    hold,
    pause,
    release,
    resume,
    roll_back,
)
from edgeloop_controller.core.schedule_terms import Schedule
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_controller.errors import ConflictError
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import ChallengerReported, SlotReported, VersionRef

OTHER = VersionRef(name="gait", version="0", manifest_digest="0" * 64)


class Shadowed(Fleet):
    """A fleet whose rollout begins in shadow on `devices`."""

    def __init__(self, count: int, devices: int = 2, waves: str = "1,100%", **terms: object):
        super().__init__(count, waves=waves)
        shadow = ShadowTerms.model_validate(
            {"devices": devices, "min_compared": 20, "soak_s": 10, "deadline_s": 100, **terms}
        )
        self.with_terms(shadow=shadow)

    def with_terms(self, **changes: object) -> None:
        self.spec = replace(self.spec, terms=self.spec.terms.model_copy(update=changes))

    def having(self) -> list[str]:
        return sorted(m.device_id for m in self.state.shadow.members.values() if m.has_it)

    def show(self, *names: str, count: int = 20, **figures: int) -> None:
        plain = {"disagreements": 1, "failed": 0, "windows": 1, "slower": 0}
        for name in names:
            self.shadowed.append(ShadowSeen(name, OLD, count, **(plain | figures)))

    def shadow_refuses(self, name: str, cause: str = "runner crashed") -> None:
        challenger = ChallengerReported(version=TARGET, state=ChallengeState.REFUSED, cause=cause)
        self.change(name, slots={"main": reports(OLD, challenger=challenger)})

    def to_waves(self) -> Step:
        self.turn()
        self.show(*self.having())
        self.turn()
        return self.turn(10)


def reports(champion: VersionRef | None, **more: object) -> SlotReported:
    slot = SlotReported(slot="main", state=SlotState.COMMITTED, champion=champion)
    return slot.model_copy(update=more)


def told(result: Step) -> list[str]:
    return [e.device_id for e in result.effects if isinstance(e, ShadowOn)]


def taken_back(result: Step) -> list[str]:
    return sorted(e.device_id for e in result.effects if isinstance(e, ShadowOff))


def test_without_the_term_the_first_wave_begins_at_once() -> None:
    fleet = Fleet(3)
    first = fleet.turn()
    assert (len(offered(first)), told(first)) == (1, [])
    assert "shadow" not in fleet.spec.terms.model_dump(mode="json")


def test_a_good_version_shadows_first_and_then_goes_its_way() -> None:
    fleet = Shadowed(5)
    first = fleet.turn()
    assert (offered(first), len(told(first))) == ([], 2)
    assert notes(first) == ["rollout.shadow_started"]
    assert fleet.state.verdict == "the shadow phase has compared 20 examples on 0 of 2 devices"
    one, other = fleet.having()
    fleet.show(one)
    fleet.turn()
    assert fleet.state.verdict == "the shadow phase has compared 20 examples on 1 of 2 devices"
    fleet.show(other)
    fleet.turn()
    assert fleet.state.verdict == "the shadow phase soaks for 10 s"
    assert asks_again_at(fleet.spec, fleet.state, fleet.now) == 11.0
    over = fleet.turn(8)
    assert taken_back(over) == [one, other]
    assert len(offered(over)) == 1
    assert fleet.state.shadow.said == "its gates hold: compared 40 examples on 2 devices"
    assert {v.gate for v in over.verdicts} > {"shadow_disagreement", "failures"}
    assert fleet.having() == []
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.to_wave(1)
    fleet.commit(*fleet.names(MemberPhase.OFFERED))
    fleet.turn(11)
    assert fleet.turn(11).state.status is RolloutStatus.DONE


def test_a_version_that_disagrees_is_halted_with_nobody_exposed() -> None:
    fleet = Shadowed(5)
    fleet.turn()
    fleet.show(*fleet.having(), count=50, disagreements=45)
    having = fleet.having()
    halted = fleet.turn()
    assert fleet.state.status is RolloutStatus.HALTED
    assert fleet.state.verdict.startswith(
        "halted in shadow: gait@2 disagrees with gait@1 on 71% to 99% of 100 examples on 2 devices"
    )
    assert taken_back(halted) == having
    assert fleet.state.members == {}
    assert offered(fleet.turn()) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"failed": 40}, "gait@2 gives no finite answer to 32% to 68% of 160 examples on 2 dev"),
        ({"windows": 20, "slower": 20}, "gait@2 takes over 3 times as long as gait@1 (p95) in"),
    ],
)
def test_a_version_that_fails_or_is_slow_is_halted(figures: dict[str, int], words: str) -> None:
    fleet = Shadowed(5)
    fleet.turn()
    fleet.show(*fleet.having(), count=40, **figures)
    fleet.turn()
    assert fleet.state.status is RolloutStatus.HALTED
    assert fleet.state.verdict.startswith(f"halted in shadow: {words}")


def test_one_at_the_bounds_is_not_halted() -> None:
    fleet = Shadowed(5)
    fleet.turn()
    fleet.show(*fleet.having(), count=990, failed=10, disagreements=495, windows=100, slower=50)
    fleet.turn()
    assert fleet.state.status is RolloutStatus.RUNNING


def test_only_what_one_site_shows_halts_it() -> None:
    fleet = Shadowed(8, devices=8)
    for n in range(8):
        fleet.change(f"d{n}", labels={"site": "north" if n < 4 else "south"})
    fleet.turn()
    fleet.show(*(f"d{n}" for n in range(4)), count=500, disagreements=0)
    fleet.show(*(f"d{n}" for n in range(4, 8)), count=60, disagreements=55)
    fleet.turn()
    assert "on 4 devices of site south" in fleet.state.verdict


def test_refusing_it_is_an_answer_that_halts() -> None:
    fleet = Shadowed(5)
    fleet.turn()
    first = fleet.having()[0]
    fleet.change(first, has_seen_offer=False)
    fleet.shadow_refuses(first)
    fleet.turn()
    assert fleet.state.status is RolloutStatus.RUNNING, "it has not seen it yet"
    fleet.change(first, has_seen_offer=True)
    halted = fleet.turn()
    assert "rollout.shadow_refused" in notes(halted)
    assert fleet.state.verdict == (
        "halted in shadow: 1 of 2 devices refused gait@2 (runner crashed); none may"
    )


def test_where_some_may_refuse_it_the_others_are_enough() -> None:
    fleet = Shadowed(5, max_refused_fraction=0.5)
    fleet.turn()
    first, other = fleet.having()
    fleet.shadow_refuses(first)
    fleet.change(first, online=False)
    fleet.show(other)
    assert told(fleet.turn()) == [], "it keeps its place"
    assert taken_back(fleet.turn(10)) == [first, other]
    assert fleet.state.shadow.ended_at is not None


def test_one_that_goes_offline_gives_its_place_to_one_that_is_free() -> None:
    fleet = Shadowed(3)
    fleet.turn()
    first, other = fleet.having()
    (spare,) = fleet.views.keys() - {first, other}
    fleet.show(first)
    fleet.change(first, online=False)
    moved = fleet.turn()
    assert (taken_back(moved), told(moved)) == ([first], [spare])
    fleet.change(other, online=False)
    assert fleet.turn().effects == (), "there is nobody in its place"
    fleet.change(first, online=True)
    assert told(fleet.turn()) == [], "both places are taken"
    fleet.change(spare, quarantine="smoke")
    assert told(fleet.turn()) == [first]
    fleet.change(other, online=True)
    fleet.show(other)
    assert offered(fleet.turn(10)), "what it showed before stays evidence"


@pytest.mark.parametrize(
    "change",
    [
        {"quarantine": "smoke"},
        {"busy_with": 9},
        {"slots": {"main": reports(TARGET)}},
        {"slots": {"main": reports(None)}},
        {"slots": {}},
    ],
)
def test_one_that_cannot_have_it_any_more_is_rid_of_it(change: dict[str, object]) -> None:
    fleet = Shadowed(2)
    fleet.turn()
    first = fleet.having()[0]
    fleet.change(first, **change)
    assert taken_back(fleet.turn()) == [first]
    assert fleet.turn().effects == ()


def test_one_that_is_held_out_or_gone_is_rid_of_it() -> None:
    fleet = Shadowed(3)
    fleet.turn()
    first, other = fleet.having()
    held = hold(fleet.state, first, "the line runs", fleet.now)
    assert taken_back(held) == [first]
    fleet.apply(held)
    assert first not in told(fleet.turn())
    fleet.apply(release(fleet.state, first))
    fleet.spec = replace(fleet.spec, selector=f"device!={other}")
    moved = fleet.turn()
    assert (taken_back(moved), told(moved)) == ([other], [first])


def test_who_is_chosen() -> None:
    fleet = Shadowed(0, devices=9)
    fleet.add("fine")
    fleet.add("offline", online=False)
    fleet.add("challenged", challenger_id=OWN_CHALLENGER + 1)
    fleet.add("busy", busy_with=9)
    fleet.add("new", old=None)
    fleet.add("has-it", slots={"main": reports(TARGET)})
    fleet.add("small", inventory=UNFIT)
    fleet.add("kept", quarantine="smoke")
    fleet.add("moving", has_seen_offer=False)
    fleet.add("trying", slots={"main": reports(OLD, state=SlotState.PROBATION)})
    assert told(fleet.turn()) == ["fine"]
    assert fleet.state.verdict == (
        "the shadow phase has 1 of 6 devices: it waits for one that is free "
        "(is not at rest: 2, is offline: 1, has challenger 71: 1)"
    )
    fleet.change("challenged", challenger_id=None)
    assert told(fleet.turn()) == ["challenged"]


def test_a_small_fleet_shadows_as_a_whole() -> None:
    fleet = Shadowed(2, devices=5)
    assert len(told(fleet.turn())) == 2
    assert offered(fleet.to_waves())


def test_beside_nothing_it_waits() -> None:
    fleet = Shadowed(0)
    fleet.add("new", old=None)
    assert fleet.turn().effects[0:0] == ()
    assert fleet.state.verdict == (
        "the shadow phase waits for a device that runs another version on slot main"
    )
    fleet.turn(100)
    assert fleet.state.shadow.is_overdue
    fleet.apply(approve(fleet.state, 0, "ada"))
    assert offered(fleet.turn()) == ["new"]


def test_answers_beside_the_target_itself_count_for_nothing() -> None:
    fleet = Shadowed(3)
    fleet.turn()
    for name in fleet.having():
        fleet.shadowed.append(ShadowSeen(name, TARGET, 50, 0, 0, 0, 0))
        fleet.shadowed.append(ShadowSeen(name, OTHER, 20, 1, 0, 0, 0))
    fleet.shadowed.append(ShadowSeen("stranger", OLD, 500, 500, 0, 0, 0))
    fleet.turn(10)
    assert fleet.state.shadow.said == "its gates hold: compared 40 examples on 2 devices"


def test_too_little_by_the_deadline_waits_for_a_person_or_for_more() -> None:
    fleet = Shadowed(5)
    fleet.turn()
    fleet.show(fleet.having()[0])
    fleet.turn()
    assert asks_again_at(fleet.spec, fleet.state, fleet.now + 30) == 101.0
    late = fleet.turn(100)
    assert notes(late) == ["rollout.shadow_overdue"]
    assert fleet.state.status is RolloutStatus.RUNNING
    assert fleet.state.verdict == (
        "the shadow phase has compared 20 examples on 1 of 2 devices, after 100 s: it waits for "
        "a person, or for more (`edgeloop rollout approve 7` lets wave 1 begin)"
    )
    assert fleet.turn().effects == (), "said once"
    more = replace(fleet.state)
    fleet.show(fleet.having()[1])
    assert offered(fleet.turn())
    fleet.shadowed.pop()
    fleet.state = more
    fleet.apply(approve(fleet.state, 0, "ada"))
    assert offered(fleet.turn())
    assert fleet.state.shadow.said == (
        "a person let it go on: it has compared 20 examples on 1 of 2 devices"
    )
    with pytest.raises(ConflictError, match="the shadow phase is over"):
        approve(fleet.state, 0, "ada")


def test_what_shows_late_still_halts() -> None:
    fleet = Shadowed(5)
    fleet.turn()
    fleet.turn(200)
    fleet.show(*fleet.having(), count=50, disagreements=50)
    fleet.turn()
    assert fleet.state.status is RolloutStatus.HALTED


def test_a_wave_that_is_to_be_approved_waits_after_it() -> None:
    fleet = Shadowed(5)
    fleet.with_terms(schedule=Schedule(approve=(1,)))
    assert offered(fleet.to_waves()) == []
    assert fleet.state.verdict == "wave 1 of 2 waits for approval of wave 1"
    assert fleet.having() == []
    fleet.apply(approve(fleet.state, 1, "ada"))
    assert offered(fleet.turn())


def test_nothing_before_the_start_and_no_pace_in_shadow() -> None:
    fleet = Shadowed(5)
    fleet.with_terms(schedule=Schedule(starts_at=50, pace_per_min=1, maintenance=("03:00-04:00",)))
    early = fleet.turn()
    assert (early.effects, early.waits_until) == ((), 50.0)
    assert fleet.state.verdict == "the shadow phase waits for its start"
    assert len(told(fleet.turn(50))) == 2


def test_a_paused_one_gives_nothing_goes_nowhere_and_is_halted() -> None:
    fleet = Shadowed(5)
    fleet.apply(pause(fleet.state))
    assert fleet.turn().effects == ()
    fleet.apply(resume(fleet.state))
    fleet.turn()
    one, other = fleet.having()
    fleet.apply(pause(fleet.state))
    fleet.change(one, online=False)
    fleet.show(one, other)
    assert fleet.turn(50).effects == ()
    fleet.show(other, count=100, disagreements=100)
    assert taken_back(fleet.turn()) == [one, other]
    assert fleet.state.status is RolloutStatus.HALTED


@pytest.mark.parametrize("by_hand", [abort, lambda s, why, at: roll_back(s, None, why, at)])
def test_ended_by_hand_all_are_taken_back(by_hand: object) -> None:
    fleet = Shadowed(5)
    fleet.turn()
    having = fleet.having()
    ended = by_hand(fleet.state, "a hotfix", fleet.now)  # type: ignore[operator]
    assert taken_back(ended) == having
    fleet.apply(ended)
    assert fleet.having() == []
    assert fleet.turn().effects == ()


class Watched(Shadowed):
    """Holds every step against what must be so."""

    def __init__(self, count: int, devices: int, **terms: object):
        super().__init__(count, devices, **terms)
        self.owned: set[str] = set()
        self.devices = devices

    def apply(self, result: Step) -> None:
        for effect in result.effects:
            if isinstance(effect, ShadowOn):
                assert effect.device_id not in self.owned
                assert self.views[effect.device_id].challenger_id is None
                self.owned.add(effect.device_id)
            elif isinstance(effect, ShadowOff):
                self.owned.remove(effect.device_id)
        super().apply(result)
        assert len(self.owned) <= self.devices
        assert self.owned == set(self.having())
        is_over = self.state.shadow.ended_at is not None
        assert is_over or not offered(result)
        assert not self.owned or (self.state.status in UNFINISHED and not is_over)

    def happen(self, what: str, name: str) -> None:
        view = self.views[name]
        if what in ("offline", "online"):
            self.change(name, online=what == "online")
        elif what == "quarantine":
            self.change(name, quarantine="" if view.quarantine else "smoke")
        elif what == "challenge" and name not in self.owned:
            self.change(name, challenger_id=None if view.challenger_id else OWN_CHALLENGER + 1)
        elif what == "refuse" and name in self.owned:
            self.shadow_refuses(name)
        elif what == "install":
            self.change(name, slots={"main": reports(TARGET)})
        elif what in ("show", "bad") and name in self.owned:
            self.show(name, count=30, disagreements=30 if what == "bad" else 0)
        elif what == "wait":
            self.now += 30
        elif self.state.status in UNFINISHED:
            self.by_hand(what, name)

    def by_hand(self, what: str, name: str) -> None:
        status, held = self.state.status, self.names(MemberPhase.HELD)
        if what == "pause":
            is_paused = status is RolloutStatus.PAUSED
            self.apply((resume if is_paused else pause)(self.state))
        elif what == "hold":
            is_held = name in held
            self.apply(
                release(self.state, name) if is_held else hold(self.state, name, "x", self.now)
            )
        elif what == "approve" and self.state.shadow.ended_at is None:
            if 0 not in self.state.approved:
                self.apply(approve(self.state, 0, "ada"))
        elif what == "abort":
            self.apply(abort(self.state, "enough", self.now))


UNFINISHED = (RolloutStatus.RUNNING, RolloutStatus.PAUSED)
HAPPENS = st.sampled_from(
    [
        *("offline", "online", "quarantine", "challenge", "refuse", "install", "show", "show"),
        *("show", "bad", "wait", "pause", "hold", "approve", "abort"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(HAPPENS, st.sampled_from(["d0", "d1", "d2", "d3", "d4"])), max_size=30),
    st.integers(1, 4),
)
def test_whatever_happens(events: list[tuple[str, str]], devices: int) -> None:
    """Nobody is offered it before the phase is over, never more than asked for have it, all are
    rid of it at the end, and a second look at the same moment changes nothing."""
    fleet = Watched(5, devices, max_refused_fraction=0.5)
    for what, name in events:
        fleet.happen(what, name)
        fleet.turn()
        again = fleet.turn(0.0)
        assert not [e for e in again.effects if isinstance(e, ShadowOn | ShadowOff)]
