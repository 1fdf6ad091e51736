"""Why a device runs what it runs: each situation of the tables, with its concern and its words."""

from dataclasses import replace
from typing import Any

import pytest

from edgeloop_controller.core.explained_facts import (
    Assigned,
    AssignedChallenger,
    Broker,
    ConcernedRollout,
    DeviceFacts,
    Hold,
    OpenAlarm,
    SlotFacts,
    Unsigned,
)
from edgeloop_controller.core.explanation import Concern, Explanation, Situation, explain
from edgeloop_controller.core.explanation_types import span
from edgeloop_controller.core.rollout import Member, MemberPhase, RolloutStatus
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import ChallengerReported, Refusal, SlotReported, VersionRef

NOW = 10_000.0
OLD, NEW, OTHER = (
    VersionRef(name="watch", version=v, manifest_digest=d * 64)
    for v, d in (("1", "1"), ("2", "2"), ("3", "3"))
)
CONNECTED = Broker(True, "broker:1883")


def reported(**changes: Any) -> SlotReported:
    document: dict[str, Any] = {
        "slot": "main",
        "state": SlotState.COMMITTED,
        "champion": OLD,
        "runner_alive": True,
    }
    return SlotReported(**(document | changes))


def rollout(**changes: Any) -> ConcernedRollout:
    """Rollout 7 of watch@2, in the first of three waves, which does not have the device."""
    known = ConcernedRollout(
        id=7,
        target=str(NEW),
        target_digest=NEW.manifest_digest,
        status=RolloutStatus.RUNNING,
        wave=0,
        waves=3,
        verdict="wave 1 of 3 soaks for 30 s",
        started_at=NOW - 100,
        ended_at=None,
        deadline_s=3600.0,
        matches=True,
        member=None,
    )
    return replace(known, **changes)


def member(phase: MemberPhase, **changes: Any) -> Member:
    return Member("d-1", 0, phase, **changes)


OFFERED = rollout(member=member(MemberPhase.OFFERED, offered_at=NOW - 60))
OFFER = Assigned(str(NEW), NEW.manifest_digest, "rollout 7, wave 1")
OLD_ASSIGNED = Assigned(str(OLD), OLD.manifest_digest, "rollout 3, wave 2")


def slot(**changes: Any) -> SlotFacts:
    known = SlotFacts("main", reported(), NOW - 5, OLD_ASSIGNED)
    return replace(known, **changes)


def device(*slots: SlotFacts, **changes: Any) -> DeviceFacts:
    known = DeviceFacts(
        "d-1",
        CONNECTED,
        online=True,
        last_seen_at=NOW - 5,
        revision_desired=4,
        revision_seen=4,
        slots=slots,
    )
    return replace(known, **changes)


def under(**changes: Any) -> SlotFacts:
    """A slot that is offered watch@2 by rollout 7, and runs watch@1."""
    return slot(reported=reported(**changes), assigned=OFFER, rollouts=(OFFERED,))


def ended(status: RolloutStatus, **changes: Any) -> SlotFacts:
    return slot(rollouts=(rollout(status=status, ended_at=NOW - 50, **changes),))


def with_member(phase: MemberPhase, **changes: Any) -> SlotFacts:
    return slot(rollouts=(rollout(member=member(phase, cause="no runtime", **changes)),))


def challenged(rollout_id: int | None = None, **changes: Any) -> SlotFacts:
    its = {"version": OTHER, "state": ChallengeState.IN_SHADOW} | changes
    challenger = AssignedChallenger(9, str(OTHER), OTHER.manifest_digest, rollout_id)
    said = reported(challenger=ChallengerReported(**its))
    return slot(reported=said, challenger=challenger)


def alarm(cause: str, scope: str = "fleet", key: str = "*") -> SlotFacts:
    return slot(alarms=(OpenAlarm(5, scope, key, cause, "gyro", 0.5, 0.2, NOW - 30),))


HOLDER = rollout(
    id=6, target=str(OTHER), target_digest="3" * 64, member=member(MemberPhase.OFFERED)
)
INSTALLING = {"candidate": NEW, "state": SlotState.DOWNLOADING}

DEVICES = [
    (DeviceFacts("d-1", CONNECTED, known=False), Situation.NEVER_SEEN, "person", "ever said hello"),
    (
        DeviceFacts("d-1", CONNECTED, known=False, telemetry_without_hello=True),
        Situation.NEVER_SEEN,
        "waits",
        "sends telemetry",
    ),
    (
        device(slot(), broker=Broker(False, "broker:1883", "connection refused")),
        Situation.BROKER_AWAY,
        "person",
        "connection refused",
    ),
    (
        device(slot(), online=False, offline_why="silent for 900 s", last_seen_at=NOW - 1000),
        Situation.OFFLINE,
        "waits",
        "offline for 17 min",
    ),
    (device(slot(), revision_seen=3), Situation.BEHIND, "waits", "it reports 3"),
    (
        device(slot(), revision_seen=3, online=False),
        Situation.BEHIND,
        "waits",
        "told as soon as it is back",
    ),
    (device(slot(), revision_seen=9), Situation.AHEAD, "waits", "restored from a backup"),
    (
        device(slot(), holds=(Hold("quarantined", NOW, "by ann", "`edgeloop device release`"),)),
        Situation.HELD,
        "person",
        "quarantined",
    ),
    (device(), Situation.NO_SLOT, "person", "no slot"),
]

RUNS = [
    (slot(), Situation.RUNS, "none", "rollout 3, wave 2"),
    (
        slot(
            assigned=OFFER,
            reported=reported(champion=NEW),
            rollouts=(rollout(member=member(MemberPhase.COMMITTED, settled_at=NOW - 600)),),
        ),
        Situation.RUNS,
        "none",
        "rollout 7, wave 1",
    ),
    (slot(assigned=None), Situation.RUNS_UNASSIGNED, "none", "keeps what it has: watch@1"),
    (
        slot(assigned=Assigned("", None, "withdrawn: it crashed")),
        Situation.RUNS_UNASSIGNED,
        "none",
        "withdrawn: it crashed",
    ),
    (
        slot(reported=reported(runner_alive=False, runner_restarts=4)),
        Situation.RUNNER_DOWN,
        "person",
        "restarted 4 times",
    ),
    (slot(reported=None, assigned=None), Situation.EMPTY, "person", "runs nothing"),
    (
        slot(reported=None, assigned=None, rollouts=(rollout(),)),
        Situation.EMPTY,
        "waits",
        "rollout 7 is for it",
    ),
    (under(), Situation.NOT_BEGUN, "waits", "has not begun. It keeps watch@1"),
    (under(**INSTALLING), Situation.INSTALLING, "waits", "another 59 min"),
    (
        under(candidate=NEW, state=SlotState.SELF_TEST, attempts=2),
        Situation.INSTALLING,
        "waits",
        "(try 2)",
    ),
    (
        under(candidate=NEW, state=SlotState.PROBATION),
        Situation.INSTALLING,
        "waits",
        "goes back to watch@1",
    ),
    (
        slot(
            reported=reported(**INSTALLING),
            assigned=OFFER,
            rollouts=(rollout(member=member(MemberPhase.OFFERED, offered_at=NOW - 7200)),),
        ),
        Situation.INSTALLING,
        "waits",
        "past its deadline of 60 min",
    ),
    (
        under(waiting="disk: 10 bytes free, 99 wanted", **INSTALLING),
        Situation.WAITING,
        "person",
        "free disk space",
    ),
    (
        under(waiting="memory: 10 bytes free, 99 wanted", **INSTALLING),
        Situation.WAITING,
        "person",
        "free memory",
    ),
    (
        under(waiting="connection refused", **INSTALLING),
        Situation.WAITING,
        "waits",
        "tries again by itself",
    ),
    (
        slot(reported=reported(waiting="source lines: no such file")),
        Situation.WAITING,
        "person",
        "feeds the slot",
    ),
    (
        under(
            state=SlotState.ROLLED_BACK,
            refused=Refusal(version=NEW, cause="self-test failed", detail="NaN"),
        ),
        Situation.REFUSED,
        "person",
        "self-test failed: NaN",
    ),
]

ROLLOUTS = [
    (slot(rollouts=(rollout(),)), Situation.NO_PLACE, "waits", "soaks for 30 s"),
    (with_member(MemberPhase.INELIGIBLE), Situation.INELIGIBLE, "person", "no runtime"),
    (with_member(MemberPhase.FAILED), Situation.FAILED, "person", "--to device=d-1"),
    (with_member(MemberPhase.WITHDRAWN), Situation.WITHDRAWN, "waits", "taken back"),
    (with_member(MemberPhase.HELD), Situation.HELD_OUT, "person", "edgeloop rollout release 7 d-1"),
    (
        slot(rollouts=(rollout(status=RolloutStatus.QUEUED),)),
        Situation.ROLLOUT_QUEUED,
        "waits",
        "starts by itself",
    ),
    (
        slot(rollouts=(rollout(waits_for_approval_of=2, verdict="waits for approval of wave 2"),)),
        Situation.ROLLOUT_UNAPPROVED,
        "person",
        "edgeloop rollout approve 7",
    ),
    (
        slot(
            rollouts=(rollout(unsigned=Unsigned("watch@4 is not signed", "edgeloop trust sign")),)
        ),
        Situation.ROLLOUT_UNSIGNED,
        "person",
        "edgeloop trust sign",
    ),
    (
        slot(rollouts=(rollout(waits_for_approval_of=2),)),
        Situation.NO_PLACE,
        "waits",
        "soaks for 30 s",
    ),
    (
        slot(rollouts=(rollout(), HOLDER)),
        Situation.HELD_BY_ROLLOUT,
        "waits",
        "until rollout 6 of watch@3",
    ),
    (
        slot(rollouts=(rollout(status=RolloutStatus.PAUSED),)),
        Situation.ROLLOUT_PAUSED,
        "person",
        "edgeloop rollout resume 7",
    ),
    (
        ended(RolloutStatus.HALTED, verdict="4 of 5 devices failed"),
        Situation.ROLLOUT_HALTED,
        "person",
        "4 of 5 devices failed",
    ),
    (
        slot(rollouts=(rollout(is_in_shadow=True),)),
        Situation.ROLLOUT_IN_SHADOW,
        "waits",
        "no device is offered the version before its gates hold",
    ),
    (
        slot(rollouts=(rollout(is_in_shadow=True, shadow_is_overdue=True),)),
        Situation.ROLLOUT_IN_SHADOW,
        "person",
        "edgeloop rollout approve 7",
    ),
    (
        ended(RolloutStatus.HALTED, is_in_shadow=True),
        Situation.ROLLOUT_HALTED,
        "person",
        "halted in its shadow phase; no device was offered it",
    ),
    (ended(RolloutStatus.ABORTED), Situation.ROLLOUT_ABORTED, "none", "ended by hand"),
    (ended(RolloutStatus.DONE), Situation.NO_PLACE, "waits", "this one is next"),
]

BESIDE = [
    (challenged(), Situation.CHALLENGER, "none", "runs challenger watch@3 in shadow"),
    (challenged(waiting="memory"), Situation.CHALLENGER, "waits", "and waits: memory"),
    (
        challenged(rollout_id=4),
        Situation.CHALLENGER,
        "none",
        "rollout 4 begins with a shadow phase",
    ),
    (challenged(version=NEW), Situation.CHALLENGER, "waits", "reports nothing of it yet"),
    (
        challenged(state=ChallengeState.REFUSED, cause="memory", detail="9 MB"),
        Situation.CHALLENGER_REFUSED,
        "person",
        "memory: 9 MB",
    ),
    (alarm("world_changed"), Situation.DRIFT, "person", "What the fleet sees"),
    (alarm("world_changed", "label", "site=x"), Situation.DRIFT, "person", "What site=x sees"),
    (alarm("sensor_fault", "device", "d-1"), Situation.DRIFT, "person", "sensor gyro"),
    (alarm("device_differs", "device", "d-1"), Situation.DRIFT, "person", "unlike the other"),
]


def words(explanation: Explanation) -> str:
    return f"{explanation.sentence} {explanation.cause} {explanation.remedy}"


def check(found: tuple[Explanation, ...], situation: Situation, concern: str, said: str) -> None:
    one = next((e for e in found if e.situation is situation), None)
    assert one is not None, found
    assert one.concern == concern
    assert said in words(one)
    for explanation in found:
        assert explanation.sentence.endswith((".", "!"))
        assert explanation.cause
        assert explanation.remedy


@pytest.mark.parametrize(("facts", "situation", "concern", "said"), DEVICES)
def test_what_is_so_of_a_device(
    facts: DeviceFacts, situation: Situation, concern: str, said: str
) -> None:
    check(explain(facts, NOW).device, situation, concern, said)


@pytest.mark.parametrize(("known", "situation", "concern", "said"), [*RUNS, *ROLLOUTS, *BESIDE])
def test_what_is_so_of_a_slot(
    known: SlotFacts, situation: Situation, concern: str, said: str
) -> None:
    found = explain(device(known), NOW)
    assert found.device == ()
    check(found.slots[0].explanations, situation, concern, said)


def test_what_was_not_heard_yet_says_so() -> None:
    found = explain(device(under(), revision_seen=3), NOW)
    assert found.device[0].situation is Situation.BEHIND
    check(found.slots[0].explanations, Situation.NOT_TOLD, "waits", "has not answered to that")
    assert found.slots[0].explanations[0].since == NOW - 60


def test_every_situation_stands_in_these_tables() -> None:
    shown = {row[1] for row in [*DEVICES, *RUNS, *ROLLOUTS, *BESIDE]}
    assert shown | {Situation.NOT_TOLD} == set(Situation)


def test_one_situation_of_running_holds() -> None:
    of_running = {row[1] for row in RUNS} | {Situation.NOT_TOLD}
    for known, situation, *_ in RUNS:
        found = [e.situation for e in explain(device(known), NOW).slots[0].explanations]
        assert [s for s in found if s in of_running] == [situation]


@pytest.mark.parametrize(
    "known",
    [
        under(),
        under(**INSTALLING),
        with_member(MemberPhase.COMMITTED),
        slot(reported=reported(champion=NEW), rollouts=(rollout(),)),
        slot(reported=reported(champion=NEW), rollouts=(rollout(status=RolloutStatus.HALTED),)),
        slot(
            assigned=OFFER,
            reported=reported(refused=Refusal(version=NEW, cause="crash")),
            rollouts=(rollout(member=member(MemberPhase.FAILED, cause="crash")),),
        ),
    ],
)
def test_what_the_slot_says_the_rollout_does_not_say_again(known: SlotFacts) -> None:
    assert len(explain(device(known), NOW).slots[0].explanations) == 1


def test_of_ended_rollouts_the_newest_is_told_and_none_behind_one_that_goes_on() -> None:
    halted = rollout(status=RolloutStatus.HALTED)
    aborted = rollout(id=5, status=RolloutStatus.ABORTED)
    running = rollout(id=8)

    def told(*rollouts: ConcernedRollout) -> list[Situation]:
        found = explain(device(slot(rollouts=rollouts)), NOW).slots[0].explanations
        return [e.situation for e in found if e.situation is not Situation.RUNS]

    assert told(halted, aborted) == [Situation.ROLLOUT_HALTED]
    assert told(running, halted) == [Situation.NO_PLACE]
    assert told(halted, rollout(id=6)) == [Situation.ROLLOUT_HALTED]


def test_an_offline_device_takes_no_place_before_the_last_wave() -> None:
    def said(wave: int) -> str:
        known = slot(rollouts=(rollout(wave=wave),))
        return words(explain(device(known, online=False), NOW).slots[0].explanations[0])

    assert "an offline device takes no place" in said(1)
    assert "has no place for it yet" in said(2)


def test_what_wants_a_person_stands_first() -> None:
    known = replace(alarm("sensor_fault"), rollouts=(rollout(),))
    concerns = [e.concern for e in explain(device(known), NOW).slots[0].explanations]
    assert concerns == [Concern.PERSON, Concern.WAITS, Concern.NONE]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (12, "12 s"), (300, "5 min"), (7200, "2 h"), (400_000, "5 d")],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
