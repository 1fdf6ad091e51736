"""A step of the rollout engine, written: state, members, assignments, desired states, events.

Invariants: all in the caller's transaction; what is to be said follows from what was written.
"""

from typing import Any

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import Note, OfferTo, RolloutState, Step, WithdrawFrom
from edgeloop_controller.services import desired, shadow_assigning
from edgeloop_controller.store import assignments, events, rollouts, versions
from edgeloop_controller.store.tables import Rollout
from edgeloop_protocol.limits import TEXT_MAX_CHARS


def apply_step(
    session: Session, rollout: Rollout, before: RolloutState, result: Step, now: float
) -> set[str]:
    """Write what `result` changes of `before`; returns the devices whose desired state changed."""
    rollouts.save_state(session, rollout, before, result.state, now)
    assigning = _Assigning(session, rollout, result)
    for effect in result.effects:
        match effect:
            case OfferTo():
                assigning.offer(effect)
            case WithdrawFrom():
                assigning.withdraw(effect)
            case Note(kind=kind, detail=detail):
                data = {"rollout": rollout.id, "detail": detail, "slot": rollout.slot}
                events.add(session, now, kind, _subject(session, rollout), data)
    shadowing = shadow_assigning.assign(session, rollout, before, result, now)
    session.flush()
    return desired.refresh(session, assigning.write() | shadowing)


class _Assigning:
    """The assignments that one step makes on the slot of its rollout."""

    def __init__(self, session: Session, rollout: Rollout, result: Step) -> None:
        self._session = session
        self._rollout = rollout
        self._probation = rollouts.terms_of(rollout).probation
        named = {e.device_id for e in result.effects if isinstance(e, OfferTo | WithdrawFrom)}
        self._holders: dict[str, tuple[int | None, str | None]] = {
            row.device_id: (row.rollout_id, row.manifest_digest)
            for row in assignments.among(session, named)
            if row.slot == rollout.slot
        }
        self._known = [(device_id, rollout.slot) for device_id in self._holders]
        self._rows: dict[str, dict[str, Any]] = {}

    def offer(self, effect: OfferTo) -> None:
        self._assign(
            effect.device_id,
            manifest_digest=self._rollout.manifest_digest,
            rollout_id=self._rollout.id,
            probation=self._probation.model_dump(mode="json"),
            reason=f"rollout {self._rollout.id}, wave {effect.wave + 1}",
        )

    def withdraw(self, effect: WithdrawFrom) -> None:
        """Nothing, where the device was given something else since, which stands."""
        holder, digest = self._holders.get(effect.device_id, (None, None))
        came_back_to_it = holder is None and digest == self._rollout.manifest_digest
        if holder != self._rollout.id and not came_back_to_it:
            return
        probation = self._probation.model_copy(update={"compare": False})
        self._assign(
            effect.device_id,
            manifest_digest=effect.before_digest,
            rollout_id=None,
            probation=probation.model_dump(mode="json"),
            reason=f"withdrawn: {effect.reason}"[:TEXT_MAX_CHARS],
        )

    def write(self) -> set[str]:
        """The devices that were assigned something."""
        assignments.save(self._session, self._rows.values(), self._known)
        return set(self._rows)

    def _assign(self, device_id: str, *, rollout_id: int | None, **columns: Any) -> None:
        self._holders[device_id] = rollout_id, columns["manifest_digest"]
        self._rows[device_id] = {
            "device_id": device_id,
            "slot": self._rollout.slot,
            "rollout_id": rollout_id,
            **columns,
        }


def _subject(session: Session, rollout: Rollout) -> str:
    version = versions.row_by_digest(session, rollout.manifest_digest)
    return f"{version.name}@{version.version}" if version else rollout.manifest_digest
