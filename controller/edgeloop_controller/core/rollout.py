"""The rollout engine: given what is known, which devices are offered the version next, and when
to stop. Pure: no clock, no IO, no database.

    rollout    when                                                       becomes, with effects
    running    a gate halts                                               halted; all go back
    running    the wave shows what it must, and there is another          running, next wave; offers
    running    the last wave shows what it must                           done
    running    nobody committed, one is past its deadline, another free   running; it goes back
    running    the wave has places, devices match, are free and fit       running; offers
    paused     a gate halts                                               halted; all go back
    done       devices come to match within the last wave's bound         done; offers, no gates
    running    pause()                                                    paused
    paused     resume()                                                   running
    halted, aborted   anything                                            unchanged
    queued     nothing that it overlaps is active or queued before it     running (services.queue)
    queued, running, paused   abort()                                     aborted; unsettled go back
    running, paused           its shadow phase is ahead of wave 1         as core.shadow_phase says
    any but queued    roll_back()                                         halted; all go back

    member     when                                                       becomes
    -          its inventory does not fit the manifest                    ineligible, never counted
    ineligible its inventory fits now                                     - (a candidate again)
    -          offered                                                    offered
    offered    reports the target as its committed champion               committed
    offered    reports that it refused the target                         failed
    offered    reports either without having seen this offer              offered
    offered    overdue, nobody committed, another is free; halt; abort    withdrawn
    committed  halt                                                       withdrawn
    withdrawn  the last wave (or done) has a place for it                 offered
    any        hold()                                                     held; it goes back
    held       release()                                                  - (a candidate again)

A wave shows what it must: no gate halts; somebody committed; no offered member is unsettled within
its own deadline (in the last wave: no online one); `soak_s` since its last commit; `min_compared`
examples compared, where comparison is on and a member had an old version; no device is kept from
its places by the schedule alone; the next wave is approved, where the terms ask for that. What
cannot be compared within `deadline_s` of the wave's start (of its last offer, where the schedule
spreads them) is noted and said in the verdict, and the wave goes on by the other gates.

Invariants: `step` never offers beyond the current wave's bound; a halted, aborted or paused
rollout offers nothing; a device is offered at most one version of a slot at a time; a device that
is offline never holds a wave up beyond its deadline, and before the last wave takes no place; with
a shadow phase nobody is offered anything before that is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop_controller.core import gates, shadow_phase
from edgeloop_controller.core.rollout_turn import EXPOSED, Turn, deadline_of_wave, soaks_since
from edgeloop_controller.core.rollout_types import (
    ComparedWindow,
    DeviceView,
    Effect,
    Evidence,
    LabelledPair,
    Look,
    Member,
    MemberPhase,
    Note,
    OfferTo,
    ProbationTerms,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    RolloutTerms,
    Step,
    Verdict,
    Wave,
    WithdrawFrom,
)
from edgeloop_controller.core.schedule import UtcOffset, utc_everywhere
from edgeloop_controller.core.shadow_types import ShadowOff, ShadowOn, ShadowSeen, ShadowState
from edgeloop_controller.errors import ConflictError

__all__ = [
    "ComparedWindow",
    "DeviceView",
    "Effect",
    "Evidence",
    "LabelledPair",
    "Look",
    "Member",
    "MemberPhase",
    "Note",
    "OfferTo",
    "ProbationTerms",
    "RolloutSpec",
    "RolloutState",
    "RolloutStatus",
    "RolloutTerms",
    "ShadowOff",
    "ShadowOn",
    "ShadowSeen",
    "ShadowState",
    "Step",
    "Verdict",
    "Wave",
    "WithdrawFrom",
    "abort",
    "approve",
    "asks_again_at",
    "hold",
    "initial_state",
    "pause",
    "release",
    "resume",
    "roll_back",
    "start",
    "step",
]


def initial_state(status: RolloutStatus = RolloutStatus.RUNNING) -> RolloutState:
    """A rollout that was just asked for: running or queued, before its first wave."""
    return RolloutState(status, wave=0, wave_started_at=None, members={})


def step(
    spec: RolloutSpec,
    state: RolloutState,
    devices: Sequence[DeviceView] | Mapping[str, DeviceView],
    evidence: Evidence,
    now: float,
    utc_offset: UtcOffset = utc_everywhere,
) -> Step:
    """One turn of the engine; calling it again with nothing new changes nothing.

    `devices` are all that match the selector now, and all that are members (or a mapping of them by
    id). Devices that are alike may share labels and inventories, which then cost once. Call it for
    running and paused rollouts, and for the newest DONE one of each slot: that one goes on
    offering, with no gates, to devices that come to match or come back. The other states change
    nothing.
    `state.verdict` says what a running rollout waits for, and why a halted one was halted.
    """
    if state.status in (RolloutStatus.HALTED, RolloutStatus.ABORTED, RolloutStatus.QUEUED):
        return Step(state, ())
    turn = Turn(spec, state, devices, now, utc_offset)
    turn.read_reports()
    if state.status is RolloutStatus.DONE:
        turn.offer_to_latecomers()
        return turn.result()
    in_shadow: tuple[Verdict, ...] = ()
    if shadow_phase.is_ahead(spec, state):
        phase = shadow_phase.advance(spec, state, turn.fit, turn.views, evidence.shadow, now)
        turn.take(phase)
        if not phase.lets_waves_begin:
            return replace(turn.result(), verdicts=phase.verdicts)
        in_shadow = phase.verdicts
    verdicts = gates.judge(spec, turn.members, evidence, turn.views)
    halting = gates.halting(verdicts)
    if halting is not None:
        turn.halt(halting.sentence)
    elif state.status is RolloutStatus.RUNNING:
        turn.withdraw_overdue()
        looked = {verdict.gate: verdict.looked for verdict in verdicts}
        compared = looked["disagreement"]
        turn.see_evidence(evidence.look, looked["accuracy"])
        turn.go_on(compared)
        turn.explain(compared)
    return replace(turn.result(), verdicts=(*in_shadow, *verdicts))


def asks_again_at(spec: RolloutSpec, state: RolloutState, now: float) -> float | None:
    """The next time at which `step` may say something new although nothing else has changed; None:
    no time will. `state` is the outcome of a step at `now` that changed nothing."""
    if state.status is not RolloutStatus.RUNNING:
        return None
    terms = spec.terms
    times = {
        member.offered_at + terms.deadline_s
        for member in state.members.values()
        if member.phase is MemberPhase.OFFERED and member.offered_at is not None
    }
    if state.wave_started_at is not None:
        members = state.members.values()
        times.add(deadline_of_wave(spec, state.wave_started_at, members))
        times.add(soaks_since(spec, state.wave_started_at, members) + terms.soak_s)
    times.update(shadow_phase.asks_again_at(spec, state))
    return min((time for time in times if time > now), default=None)


def pause(state: RolloutState) -> Step:
    """Stop offering; what was offered stays. Raises ConflictError unless running."""
    return _set_status(state, (RolloutStatus.RUNNING,), RolloutStatus.PAUSED, "rollout.paused")


def resume(state: RolloutState) -> Step:
    """Go on from a pause. Raises ConflictError unless paused."""
    return _set_status(state, (RolloutStatus.PAUSED,), RolloutStatus.RUNNING, "rollout.resumed")


def abort(state: RolloutState, reason: str, now: float) -> Step:
    """End it by hand: unsettled members are withdrawn, committed ones keep the version.

    Raises ConflictError unless queued, running or paused.
    """
    unfinished = (RolloutStatus.QUEUED, RolloutStatus.RUNNING, RolloutStatus.PAUSED)
    ended = _set_status(state, unfinished, RolloutStatus.ABORTED, "rollout.aborted", reason)
    shadow, taken_back = shadow_phase.ended(state.shadow, reason, now)
    members, effects = dict(state.members), [*ended.effects, *taken_back]
    for member in state.members.values():
        if member.phase is MemberPhase.OFFERED:
            effects.append(WithdrawFrom(member.device_id, member.before_digest, reason))
            members[member.device_id] = replace(
                member, phase=MemberPhase.WITHDRAWN, settled_at=now, cause=reason
            )
    aborted = replace(ended.state, members=members, verdict=reason, shadow=shadow)
    return Step(aborted, tuple(effects))


def roll_back(state: RolloutState, to_digest: str | None, reason: str, now: float) -> Step:
    """Halt it by hand: whoever was offered it or holds it goes back to what it had, or to
    `to_digest` where that is named. Finished rollouts too. Raises ConflictError while queued."""
    if state.status is RolloutStatus.QUEUED:
        raise ConflictError("the rollout is queued: nobody was offered its version yet")
    shadow, taken_back = shadow_phase.ended(state.shadow, reason, now)
    members, effects = dict(state.members), list[Effect](taken_back)
    for member in state.members.values():
        if member.phase in EXPOSED:
            effects.append(
                WithdrawFrom(member.device_id, to_digest or member.before_digest, reason)
            )
            members[member.device_id] = replace(
                member, phase=MemberPhase.WITHDRAWN, settled_at=now, cause=reason
            )
    halted = replace(
        state, status=RolloutStatus.HALTED, members=members, verdict=reason, shadow=shadow
    )
    return Step(halted, (*effects, Note("rollout.rolled_back", reason)))


def hold(state: RolloutState, device_id: str, reason: str, now: float) -> Step:
    """Keep a device out: what it has by this rollout goes back. Raises ConflictError if it is out
    already."""
    member = state.members.get(device_id) or Member(device_id, state.wave, MemberPhase.HELD)
    if device_id in state.members and member.phase is MemberPhase.HELD:
        raise ConflictError(f"{device_id} is held out already: {member.cause}")
    shadow, taken_back = shadow_phase.without(state.shadow, device_id, reason, now)
    effects: list[Effect] = [*taken_back, Note("rollout.device_held", f"{device_id}: {reason}")]
    if member.phase in EXPOSED:
        effects.insert(0, WithdrawFrom(device_id, member.before_digest, reason))
    held = replace(member, phase=MemberPhase.HELD, settled_at=now, cause=reason)
    members = {**state.members, device_id: held}
    return Step(replace(state, members=members, shadow=shadow), tuple(effects))


def release(state: RolloutState, device_id: str) -> Step:
    """Let a device that was held out take part again. Raises ConflictError if it was not."""
    member = state.members.get(device_id)
    if member is None or member.phase is not MemberPhase.HELD:
        raise ConflictError(f"{device_id} is not held out of this rollout")
    members = {name: one for name, one in state.members.items() if name != device_id}
    return Step(replace(state, members=members), (Note("rollout.device_released", device_id),))


def start(state: RolloutState) -> Step:
    """From the queue. Raises ConflictError unless queued."""
    return _set_status(state, (RolloutStatus.QUEUED,), RolloutStatus.RUNNING, "rollout.dequeued")


def approve(state: RolloutState, wave: int, by: str) -> Step:
    """Let a wave (from 1) begin, or the shadow phase (0) be over with what it has shown. Raises
    ConflictError when it has begun, is over or is approved."""
    if wave == shadow_phase.SHADOW_WAVE:
        return _approve_shadow(state, by)
    begun = state.wave + (state.wave_started_at is not None)
    if state.status not in (RolloutStatus.QUEUED, RolloutStatus.RUNNING, RolloutStatus.PAUSED):
        raise ConflictError(f"the rollout is {state.status}: there is nothing to approve")
    if wave <= begun or wave in state.approved:
        raise ConflictError(
            f"wave {wave} {'has begun' if wave <= begun else 'is approved'} already"
        )
    approved = replace(state, approved=state.approved | {wave})
    return Step(approved, (Note("rollout.approved", f"wave {wave}, by {by}"),))


def _approve_shadow(state: RolloutState, by: str) -> Step:
    unfinished = (RolloutStatus.QUEUED, RolloutStatus.RUNNING, RolloutStatus.PAUSED)
    if state.status not in unfinished or state.shadow.ended_at is not None:
        raise ConflictError("the shadow phase is over: there is nothing to approve")
    if shadow_phase.SHADOW_WAVE in state.approved:
        raise ConflictError("that the shadow phase be over is approved already")
    approved = replace(state, approved=state.approved | {shadow_phase.SHADOW_WAVE})
    return Step(approved, (Note("rollout.approved", f"the shadow phase, by {by}"),))


def _set_status(
    state: RolloutState,
    allowed: tuple[RolloutStatus, ...],
    status: RolloutStatus,
    kind: str,
    detail: str = "",
) -> Step:
    if state.status not in allowed:
        raise ConflictError(
            f"the rollout is {state.status}; it must be {' or '.join(allowed)} for this"
        )
    return Step(replace(state, status=status), (Note(kind, detail),))
