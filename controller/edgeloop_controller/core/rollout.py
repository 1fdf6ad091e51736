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
    running, paused   abort()                                             aborted; unsettled go back
    halted, aborted   anything                                            unchanged

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

A wave shows what it must: no gate halts; somebody committed; no offered member is unsettled within
its own deadline (in the last wave: no online one); `soak_s` since its last commit; `min_compared`
examples compared, where comparison is on and a member had an old version. What cannot be compared
within `deadline_s` of the wave's start is noted and said in the verdict, and the wave goes on by
the other gates.

Invariants: `step` never offers beyond the current wave's bound; a halted, aborted or paused
rollout offers nothing; a device is offered at most one version of a slot at a time; a device that
is offline never holds a wave up beyond its deadline, and before the last wave takes no place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop_controller.core import gates
from edgeloop_controller.core.rollout_turn import Turn, soaks_since
from edgeloop_controller.core.rollout_types import (
    ComparedWindow,
    DeviceView,
    Effect,
    Evidence,
    LabelledPair,
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
from edgeloop_controller.errors import ConflictError

__all__ = [
    "ComparedWindow",
    "DeviceView",
    "Effect",
    "Evidence",
    "LabelledPair",
    "Member",
    "MemberPhase",
    "Note",
    "OfferTo",
    "ProbationTerms",
    "RolloutSpec",
    "RolloutState",
    "RolloutStatus",
    "RolloutTerms",
    "Step",
    "Verdict",
    "Wave",
    "WithdrawFrom",
    "abort",
    "asks_again_at",
    "initial_state",
    "pause",
    "resume",
    "step",
]


def initial_state() -> RolloutState:
    """A rollout that was just asked for: running, before its first wave, nobody offered."""
    return RolloutState(RolloutStatus.RUNNING, wave=0, wave_started_at=None, members={})


def step(
    spec: RolloutSpec,
    state: RolloutState,
    devices: Sequence[DeviceView] | Mapping[str, DeviceView],
    evidence: Evidence,
    now: float,
) -> Step:
    """One turn of the engine; calling it again with nothing new changes nothing.

    `devices` are all that match the selector now, and all that are members (or a mapping of them by
    id). Devices that are alike may share labels and inventories, which then cost once. Call it for
    running and paused rollouts, and for the newest DONE one of each slot: that one goes on
    offering, with no gates, to devices that come to match or come back. The other states change
    nothing.
    `state.verdict` says what a running rollout waits for, and why a halted one was halted.
    """
    if state.status in (RolloutStatus.HALTED, RolloutStatus.ABORTED):
        return Step(state, ())
    turn = Turn(spec, state, devices, now)
    turn.read_reports()
    if state.status is RolloutStatus.DONE:
        turn.offer_to_latecomers()
        return turn.result()
    verdicts = gates.judge(spec, turn.members, evidence)
    halting = gates.halting(verdicts)
    if halting is not None:
        turn.halt(halting.sentence)
    elif state.status is RolloutStatus.RUNNING:
        turn.withdraw_overdue()
        compared = next(verdict.looked for verdict in verdicts if verdict.gate == "disagreement")
        turn.go_on(compared)
        turn.explain(compared)
    return replace(turn.result(), verdicts=verdicts)


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
        times.add(state.wave_started_at + terms.deadline_s)
        commits = (m for m in state.members.values() if m.phase is MemberPhase.COMMITTED)
        times.add(soaks_since(spec, state.wave_started_at, commits) + terms.soak_s)
    return min((time for time in times if time > now), default=None)


def pause(state: RolloutState) -> Step:
    """Stop offering; what was offered stays. Raises ConflictError unless running."""
    return _set_status(state, (RolloutStatus.RUNNING,), RolloutStatus.PAUSED, "rollout.paused")


def resume(state: RolloutState) -> Step:
    """Go on from a pause. Raises ConflictError unless paused."""
    return _set_status(state, (RolloutStatus.PAUSED,), RolloutStatus.RUNNING, "rollout.resumed")


def abort(state: RolloutState, reason: str, now: float) -> Step:
    """End it by hand: unsettled members are withdrawn, committed ones keep the version.

    Raises ConflictError unless running or paused.
    """
    unfinished = (RolloutStatus.RUNNING, RolloutStatus.PAUSED)
    ended = _set_status(state, unfinished, RolloutStatus.ABORTED, "rollout.aborted", reason)
    members, effects = dict(state.members), list(ended.effects)
    for member in state.members.values():
        if member.phase is MemberPhase.OFFERED:
            effects.append(WithdrawFrom(member.device_id, member.before_digest, reason))
            members[member.device_id] = replace(
                member, phase=MemberPhase.WITHDRAWN, settled_at=now, cause=reason
            )
    return Step(replace(ended.state, members=members, verdict=reason), tuple(effects))


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
