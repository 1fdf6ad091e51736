"""Challengers as people handle them: start, stop.

Invariants: two that are not over never share a slot of a device; what is refused changes nothing;
devices are given one, and rid of it, by the reconciler (services.challenger_turn).
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.errors import ConflictError, NotFoundError
from edgeloop_controller.services.matching import matching_ids
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.store import challengers, events, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Challenger
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import ShadowBudget


@dataclass(frozen=True)
class ChallengerRequest:
    name: str
    version: str
    selector: str
    slot: str
    budget: ShadowBudget


class Challengers:
    def __init__(self, database: Database, clock: Clock, gate: SigningGate) -> None:
        self._database = database
        self._clock = clock
        self._gate = gate

    def start(self, request: ChallengerRequest) -> int:
        """The new one's id; its devices are told at the next tick.

        Raises NotFoundError, SelectorError or ConflictError.
        """
        now = self._clock.wall()
        with self._database.writing() as session:
            version = versions.require(session, request.name, request.version)
            self._gate.require(version, request.slot)
            matching = matching_ids(session, selectors.parse(request.selector))
            if not matching:
                raise NotFoundError(
                    f"no device matches {request.selector!r}",
                    hint="see `edgeloop device list` for ids and labels",
                )
            _refuse_overlap(session, request, matching)
            row = Challenger(
                manifest_digest=version.manifest_digest,
                slot=request.slot,
                selector=request.selector,
                budget=request.budget.model_dump(mode="json"),
                started_at=now,
                ended_at=None,
            )
            session.add(row)
            session.flush()
            data = {"challenger": row.id, "selector": request.selector, "devices": len(matching)}
            events.add(
                session, now, "challenger.started", f"{version.name}@{version.version}", data
            )
            return row.id

    def stop(self, challenger_id: int) -> None:
        """Its devices are rid of it at the next tick. Raises NotFoundError or ConflictError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            row = challengers.require(session, challenger_id)
            if row.rollout_id is not None and row.ended_at is None:
                raise ConflictError(
                    f"challenger {challenger_id} is the shadow phase of rollout {row.rollout_id}",
                    hint=f"`edgeloop rollout abort {row.rollout_id}` ends both",
                )
            if row.ended_at is not None:
                raise ConflictError(
                    f"challenger {challenger_id} is stopped already",
                    hint="`edgeloop challenger list` shows those that are not",
                )
            row.ended_at = now
            version = versions.by_digest(session, row.manifest_digest)
            assert version is not None  # a foreign key
            data = {"challenger": row.id}
            events.add(
                session, now, "challenger.stopped", f"{version.name}@{version.version}", data
            )


def _refuse_overlap(session: Session, request: ChallengerRequest, matching: set[str]) -> None:
    _refuse_rollouts(session, request, matching)
    for other in challengers.active(session):
        shared = sorted(matching & matching_ids(session, selectors.parse(other.selector)))
        if other.slot == request.slot and shared:
            named = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            raise ConflictError(
                f"challenger {other.id} has {len(shared)} of these devices ({named}) "
                f"on slot {other.slot} already",
                hint=f"`edgeloop challenger stop {other.id}`, or narrow the selector",
            )


def _refuse_rollouts(session: Session, request: ChallengerRequest, matching: set[str]) -> None:
    for other in challengers.active_of_rollouts(session):
        shared = sorted(matching & challengers.holders(session, other.id))
        if other.slot == request.slot and shared:
            named = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            raise ConflictError(
                f"the shadow phase of rollout {other.rollout_id} has {len(shared)} of these "
                f"devices ({named}) on slot {other.slot}",
                hint="wait until its first wave begins, or narrow the selector",
            )
