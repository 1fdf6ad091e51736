"""The rollout engine: given what is known, which devices are offered the version next, and when
to stop. Pure: no clock, no IO, no database.

Invariants: `step` never offers beyond the current wave's bound; a halted, aborted or paused
rollout offers nothing; a device is offered at most one version of a slot at a time; a device that
is offline never holds a wave up beyond its deadline.
"""

from collections.abc import Sequence

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
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    RolloutTerms,
    Step,
    Wave,
    WithdrawFrom,
)

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
    "RolloutSpec",
    "RolloutState",
    "RolloutStatus",
    "RolloutTerms",
    "Step",
    "Wave",
    "WithdrawFrom",
    "abort",
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
    devices: Sequence[DeviceView],
    evidence: Evidence,
    now: float,
) -> Step:
    """One turn of the engine; calling it again with nothing new changes nothing.

    `devices` are all that match the selector now, and all that are members. Call it for running
    and paused rollouts, and for the newest DONE one of each slot: that one goes on offering, with
    no gates, to devices that come to match or come back. The other states change nothing.
    """
    raise NotImplementedError


def pause(state: RolloutState) -> Step:
    """Stop offering; what was offered stays. Raises ConflictError unless running."""
    raise NotImplementedError


def resume(state: RolloutState) -> Step:
    """Go on from a pause. Raises ConflictError unless paused."""
    raise NotImplementedError


def abort(state: RolloutState, reason: str, now: float) -> Step:
    """End it by hand: unsettled members are withdrawn, committed ones keep the version.

    Raises ConflictError unless running or paused.
    """
    raise NotImplementedError
