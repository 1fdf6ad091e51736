"""What a slot does and why, its challenger and its drift (the device's part: `core.explanation`).

    situation           when, the first that holds                               concern
    waiting             it reports that it waits for something                   waits, or person
    installing          it has a candidate underway                              waits
    not_told            it has not heard of what it is assigned                  waits
    refused             it refused what it is assigned                           person
    runner_down         it has a champion whose runner is not alive              person
    runs                its champion is what it is assigned                      none
    not_begun           it heard of another version, and reports nothing of it   waits
    runs_unassigned     it has a champion, and is assigned nothing               none
    empty               neither                                                  waits, or person

    challenger          it has a challenger, or is to have one                   none or waits
    challenger_refused  it refused it                                            person
    drift               an alarm is open that the device is part of              person

Invariant: exactly one of the first table for a slot.
"""

from collections.abc import Iterator
from typing import Final

from edgeloop.documents.why import Concern, Situation
from edgeloop_controller.core.explained_facts import ConcernedRollout, DeviceFacts, SlotFacts
from edgeloop_controller.core.explanation_types import (
    NOTHING_TO_DO,
    Explanation,
    span,
)
from edgeloop_controller.core.rollout_types import MemberPhase
from edgeloop_protocol.lifecycle import RESTING, ChallengeState, SlotState
from edgeloop_protocol.messages import SlotReported, VersionRef

DOING: Final = {
    SlotState.VERIFIED: "has looked at {version} and is about to download it",
    SlotState.DOWNLOADING: "is downloading {version}",
    SlotState.STAGED: "has downloaded {version} and is about to test it",
    SlotState.SELF_TEST: "is testing {version} on its golden examples",
    SlotState.ACTIVATING: "is switching to {version}",
    SlotState.PROBATION: "has {version} on probation: it answers, and is watched",
}

# What a device says that it waits for, by how it begins; none: it tries again by itself.
WAIT_REMEDIES: Final = (
    ("disk", "free disk space on the device; it looks again by itself"),
    ("memory", "free memory on the device, or give the version a smaller requires.memory_bytes"),
    ("journal", "the device cannot write its state: check its disk with `edgeloop-agent doctor`"),
    ("source", "mend what feeds the slot: `edgeloop-agent doctor` on the device says how"),
    ("sink", "mend what takes the slot's answers: `edgeloop-agent doctor` on the device says how"),
)
CHALLENGE_DOING: Final = {
    ChallengeState.WANTED: "has been told of challenger {version}",
    ChallengeState.DOWNLOADING: "is downloading challenger {version}",
    ChallengeState.STAGED: "has challenger {version} ready, and starts it when the champion serves",
    ChallengeState.IN_SHADOW: "runs challenger {version} in shadow",
}


def explain_run(facts: DeviceFacts, slot: SlotFacts, now: float) -> Explanation:
    """The one that holds of the first table."""
    reported = slot.reported
    if reported is not None and reported.waiting:
        return _waiting(facts, slot, reported)
    if reported is not None and reported.candidate and reported.state not in RESTING:
        return _installing(facts, slot, reported, reported.candidate, now)
    if slot.assigned is not None and slot.assigned.digest is not None:
        return _assigned(facts, slot, slot.assigned.digest)
    if reported is not None and reported.champion is not None:
        return _runs(facts, slot, reported, reported.champion)
    coming = next((rollout for rollout in slot.rollouts if not rollout.is_over), None)
    if coming is not None:
        return Explanation(
            Situation.EMPTY,
            Concern.WAITS,
            "It runs nothing, and is assigned nothing yet.",
            f"rollout {coming.id} is for it, and has not come to it",
            NOTHING_TO_DO,
        )
    return Explanation(
        Situation.EMPTY,
        Concern.PERSON,
        "It runs nothing, and is assigned nothing.",
        "no rollout was for it so far",
        f"`edgeloop rollout start NAME@VERSION --to device={facts.id} --slot {slot.slot}`",
    )


def _assigned(facts: DeviceFacts, slot: SlotFacts, digest: str) -> Explanation:
    reported, version = slot.reported, slot.assigned.version if slot.assigned else ""
    champion = reported.champion if reported else None
    if reported is not None and champion is not None and champion.manifest_digest == digest:
        return _runs(facts, slot, reported, champion)
    keeps = f"It keeps {champion}." if champion else "It runs nothing meanwhile."
    if not facts.has_heard:
        return Explanation(
            Situation.NOT_TOLD,
            Concern.WAITS,
            f"It should run {version} and has not answered to that yet. {keeps}",
            _asked_by(slot),
            NOTHING_TO_DO if facts.online else "bring it back online",
            _offered_at(slot, digest),
        )
    refused = reported.refused if reported else None
    if refused is not None and refused.version.manifest_digest == digest:
        detail = f"{refused.cause}: {refused.detail}" if refused.detail else refused.cause
        return Explanation(
            Situation.REFUSED,
            Concern.PERSON,
            f"It refused {version}, and will not try it again. {keeps}",
            detail,
            f"publish a version that mends this and roll it out; the device's own words: "
            f"`edgeloop device diagnose {facts.id} logs --slot {slot.slot}`",
            slot.heard_at,
        )
    return Explanation(
        Situation.NOT_BEGUN,
        Concern.WAITS,
        f"It knows that it should run {version}, and has not begun. {keeps}",
        _asked_by(slot),
        f"if it stays so for minutes: `edgeloop device diagnose {facts.id} status`; is slot "
        f"{slot.slot} in its agent's configuration?",
        _offered_at(slot, digest),
    )


def _runs(
    facts: DeviceFacts, slot: SlotFacts, reported: SlotReported, champion: VersionRef
) -> Explanation:
    if not reported.runner_alive:
        return Explanation(
            Situation.RUNNER_DOWN,
            Concern.PERSON,
            f"It has {champion}, but its runner is not alive: it answers nothing.",
            f"the runner ended and is not back yet; restarted {reported.runner_restarts} times",
            f"`edgeloop device diagnose {facts.id} logs --slot {slot.slot}` says why; "
            f"`edgeloop device diagnose {facts.id} restart-runner --slot {slot.slot}`",
            slot.heard_at,
        )
    if slot.assigned is None or slot.assigned.digest is None:
        return Explanation(
            Situation.RUNS_UNASSIGNED,
            Concern.NONE,
            f"It is assigned nothing, and keeps what it has: {champion}.",
            slot.assigned.reason if slot.assigned else "no rollout was for it so far",
            f"to give it something: `edgeloop rollout start NAME@VERSION --to device={facts.id}`",
        )
    settled = _membership(slot, slot.assigned.digest)
    since = settled.member.settled_at if settled and settled.member else None
    return Explanation(
        Situation.RUNS,
        Concern.NONE,
        f"It runs what it should: {champion}.",
        _asked_by(slot),
        NOTHING_TO_DO,
        since,
    )


def _waiting(facts: DeviceFacts, slot: SlotFacts, reported: SlotReported) -> Explanation:
    candidate = reported.candidate
    waited = f" before it goes on with {candidate}" if candidate else ", with nothing to install"
    remedy = next((r for word, r in WAIT_REMEDIES if reported.waiting.startswith(word)), "")
    return Explanation(
        Situation.WAITING,
        Concern.PERSON if remedy else Concern.WAITS,
        f"It waits{waited}.{_still_runs(reported)}",
        reported.waiting,
        remedy
        or "nothing: it tries again by itself, within minutes; if it does not mend, "
        f"`edgeloop device diagnose {facts.id} logs`",
        slot.heard_at,
    )


def _installing(
    facts: DeviceFacts,
    slot: SlotFacts,
    reported: SlotReported,
    candidate: VersionRef,
    now: float,
) -> Explanation:
    doing = DOING[reported.state].format(version=candidate)
    tries = f" (try {reported.attempts})" if reported.attempts > 1 else ""
    rollout = _membership(slot, candidate.manifest_digest)
    remedy = NOTHING_TO_DO
    since = _offered_at(slot, candidate.manifest_digest)
    if rollout is not None and since is not None and rollout.is_active:
        left_s = since + rollout.deadline_s - now
        remedy = (
            f"nothing: rollout {rollout.id} waits for it for another {span(left_s)}"
            if left_s > 0
            else f"it is past its deadline of {span(rollout.deadline_s)}, and the rollout goes on "
            f"without it: `edgeloop device diagnose {facts.id} logs`"
        )
    return Explanation(
        Situation.INSTALLING,
        Concern.WAITS,
        f"It {doing}{tries}.{_still_runs(reported)}",
        _asked_by(slot),
        remedy,
        since,
    )


def explain_challenger(facts: DeviceFacts, slot: SlotFacts) -> Iterator[Explanation]:
    """Of one that the slot has or is to have; it never changes what the slot answers."""
    assigned, reported = slot.challenger, slot.challenger_reported
    if assigned is None and reported is None:
        return
    by, stop = "it has not been rid of it yet", NOTHING_TO_DO
    if assigned is not None and assigned.rollout_id is not None:
        rollout = assigned.rollout_id
        by = f"rollout {rollout} begins with a shadow phase, and the lot chose this device for it"
        stop = f"to follow it: `edgeloop rollout show {rollout}`"
    elif assigned is not None:
        by = f"challenger {assigned.id} is for it"
        stop = f"to end it: `edgeloop challenger stop {assigned.id}`"
    if reported is None or (assigned and reported.version.manifest_digest != assigned.digest):
        version = assigned.version if assigned else ""
        sentence = f"It is to run challenger {version} in shadow, and reports nothing of it yet."
        yield Explanation(Situation.CHALLENGER, Concern.WAITS, sentence, by, stop)
    elif reported.state is ChallengeState.REFUSED:
        yield Explanation(
            Situation.CHALLENGER_REFUSED,
            Concern.PERSON,
            f"It refused challenger {reported.version}; what it answers is not touched by that.",
            ": ".join(filter(None, (reported.cause, reported.detail))) or "it does not say why",
            f"{stop}; its own words: `edgeloop device diagnose {facts.id} logs`",
            slot.heard_at,
        )
    else:
        waits = f", and waits: {reported.waiting}" if reported.waiting else ""
        doing = CHALLENGE_DOING[reported.state].format(version=reported.version)
        shadows = reported.state is ChallengeState.IN_SHADOW and not waits
        concern = Concern.NONE if shadows else Concern.WAITS
        yield Explanation(Situation.CHALLENGER, concern, f"It {doing}{waits}.", by, stop)


def explain_drift(slot: SlotFacts) -> Iterator[Explanation]:
    for alarm in slot.alarms:
        of = {"fleet": "the fleet", "device": "this device"}.get(alarm.scope, alarm.key)
        sentences = {
            "sensor_fault": f"What its sensor {alarm.sensor} says is not what it used to say.",
            "device_differs": "What it sees is unlike what its model was trained on, and unlike "
            "the other devices.",
        }
        changed = f"What {of} sees has moved away from what the model was trained on."
        remedies = {
            "sensor_fault": f"look at the sensor {alarm.sensor}: its examples are not trained on",
            "device_differs": "look at the device and where it is; it may want a model of its own",
        }
        yield Explanation(
            Situation.DRIFT,
            Concern.PERSON,
            sentences.get(alarm.cause, changed),
            f"drift alarm {alarm.id} ({alarm.cause}) on {of}: score {alarm.score:.3g}, threshold "
            f"{alarm.threshold:.3g}",
            remedies.get(
                alarm.cause, "`edgeloop drift show`, then retrain: `edgeloop retrain policies`"
            ),
            alarm.raised_at,
        )


def _still_runs(reported: SlotReported) -> str:
    if reported.state is SlotState.PROBATION:
        return f" If it fails, the device goes back to {reported.champion or 'running nothing'}."
    if reported.champion is None:
        return " It runs nothing meanwhile."
    return f" Meanwhile {reported.champion} runs."


def _membership(slot: SlotFacts, digest: str) -> ConcernedRollout | None:
    """The newest rollout of a version that the device is a member of."""
    phases = (MemberPhase.OFFERED, MemberPhase.COMMITTED)
    for rollout in slot.rollouts:
        if rollout.target_digest == digest and rollout.member and rollout.member.phase in phases:
            return rollout
    return None


def _offered_at(slot: SlotFacts, digest: str) -> float | None:
    rollout = _membership(slot, digest)
    return rollout.member.offered_at if rollout and rollout.member else None


def _asked_by(slot: SlotFacts) -> str:
    """`rollout 4, wave 1`, as the assignment says."""
    reason = slot.assigned.reason if slot.assigned else ""
    return f"assigned by {reason}" if reason.startswith("rollout") else reason or "not known"
