"""Rollouts as people handle them: start, pause, resume, abort.

Invariants: two active rollouts never share a slot of a device; what is refused changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from edgeloop_controller.core import rollout as engine
from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.rollout import RolloutState, RolloutTerms, Step
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.errors import ConflictError, NotFoundError, RefusedInputError
from edgeloop_controller.services.apply_step import apply_step
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.matching import matching_ids
from edgeloop_controller.store import events, rollouts, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Rollout, Version
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Name


@dataclass(frozen=True)
class RolloutRequest:
    name: str
    version: str
    selector: str
    waves: tuple[str, ...]
    terms: RolloutTerms
    slot: str = "main"
    allow_empty: bool = False
    training_run_id: int | None = None


class Rollouts:
    def __init__(self, database: Database, desired: DesiredPublisher, clock: Clock) -> None:
        self._database = database
        self._desired = desired
        self._clock = clock

    def start(self, request: RolloutRequest) -> int:
        """The new rollout's id; its first devices are offered the version at the next tick.

        Raises NotFoundError, SelectorError, WaveError, RefusedInputError or ConflictError.
        """
        selector = selectors.parse(request.selector)
        parse_waves(",".join(request.waves))
        _check_slot(request.slot)
        now = self._clock.wall()
        with self._database.writing() as session:
            version = versions.require(session, request.name, request.version)
            matching = matching_ids(session, selector)
            if not matching and not request.allow_empty:
                raise NotFoundError(
                    f"no device matches {request.selector!r}",
                    hint="see `edgeloop device list` for ids and labels, or pass --allow-empty "
                    "for devices that are yet to come",
                )
            _refuse_overlap(session, request, matching)
            rollout = _new_row(version, request, now)
            session.add(rollout)
            session.flush()
            data = {
                "rollout": rollout.id,
                "selector": request.selector,
                "waves": list(request.waves),
                "devices": len(matching),
            }
            events.add(session, now, "rollout.started", f"{version.name}@{version.version}", data)
            return rollout.id

    def pause(self, rollout_id: int) -> None:
        """Raises NotFoundError or ConflictError."""
        self._change(rollout_id, engine.pause)

    def resume(self, rollout_id: int) -> None:
        """Raises NotFoundError or ConflictError."""
        self._change(rollout_id, engine.resume)

    def abort(self, rollout_id: int, reason: str) -> None:
        """Devices that have not committed go back. Raises NotFoundError or ConflictError."""
        now = self._clock.wall()
        self._change(rollout_id, lambda state: engine.abort(state, reason, now))

    def _change(self, rollout_id: int, change: Callable[[RolloutState], Step]) -> None:
        with self._database.writing() as session:
            rollout = rollouts.require(session, rollout_id)
            before = rollouts.state_of(session, rollout)
            touched = apply_step(session, rollout, before, change(before), self._clock.wall())
        self._desired.publish(touched)


def _check_slot(slot: str) -> None:
    try:
        TypeAdapter(Name).validate_python(slot)
    except ValidationError as error:
        raise RefusedInputError(
            f"slot {slot!r} is no name: letters, digits and _ . + - , a letter or digit first",
            hint="leave it out for the slot `main`",
        ) from error


def _refuse_overlap(session: Session, request: RolloutRequest, matching: set[str]) -> None:
    for other in rollouts.with_status(session, rollouts.ACTIVE):
        if other.slot != request.slot:
            continue
        theirs = matching_ids(session, selectors.parse(other.selector))
        shared = sorted(matching & (theirs | set(rollouts.members_of(session, other.id))))
        if shared or other.selector == request.selector:
            named = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            raise ConflictError(
                f"rollout {other.id} is {other.status} on slot {other.slot}"
                + (f" with {len(shared)} of the same devices ({named})" if shared else ""),
                hint=f"wait for it, or `edgeloop rollout abort {other.id}`, or narrow the selector",
            )


def _new_row(version: Version, request: RolloutRequest, now: float) -> Rollout:
    state = engine.initial_state()
    return Rollout(
        manifest_digest=version.manifest_digest,
        slot=request.slot,
        selector=request.selector,
        waves=list(request.waves),
        terms=rollouts.terms_document(request.terms),
        status=state.status.value,
        wave=state.wave,
        wave_started_at=state.wave_started_at,
        started_at=now,
        ended_at=None,
        verdict=state.verdict,
        training_run_id=request.training_run_id,
    )
