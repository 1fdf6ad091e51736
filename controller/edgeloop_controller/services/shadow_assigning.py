"""The challenger that a rollout owns: given to devices and taken from them, as its engine says.

Invariants: all in the caller's transaction; a rollout has one challenger at most, made when the
first device gets it and ended with its shadow phase.
"""

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import RolloutState, ShadowOff, ShadowOn, Step
from edgeloop_controller.store import challengers, rollouts
from edgeloop_controller.store.tables import Challenger, Rollout


def assign(
    session: Session, rollout: Rollout, before: RolloutState, result: Step, now: float
) -> set[str]:
    """Write it; the devices that were given it or rid of it."""
    moved = [one for one in result.effects if isinstance(one, ShadowOn | ShadowOff)]
    is_over = result.state.shadow.ended_at is not None and before.shadow.ended_at is None
    if not moved and not is_over:
        return set()
    challenger = challengers.of_rollout(session, rollout.id)
    if challenger is None:
        if not moved:
            return set()
        challenger = _made(session, rollout, now)
    slot = rollout.slot
    # In the order of the effects: who is rid of it may be given it again.
    wanted = {
        (one.device_id, slot): challenger.id if isinstance(one, ShadowOn) else None for one in moved
    }
    challengers.assign(session, wanted)
    if is_over:
        challenger.ended_at = now
    session.flush()
    return {one.device_id for one in moved}


def _made(session: Session, rollout: Rollout, now: float) -> Challenger:
    terms = rollouts.terms_of(rollout).shadow
    assert terms is not None  # it has a shadow phase
    made = Challenger(
        manifest_digest=rollout.manifest_digest,
        slot=rollout.slot,
        selector=rollout.selector,
        budget=terms.budget.model_dump(mode="json"),
        started_at=now,
        ended_at=None,
        rollout_id=rollout.id,
    )
    session.add(made)
    session.flush()
    return made
