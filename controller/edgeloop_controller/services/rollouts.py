"""Rollouts as people handle them: start, pause, resume, abort, approve, hold out, roll back.

Invariants: two active rollouts never share a slot of a device; what is refused changes nothing.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from edgeloop_controller.core import rollout as engine
from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.rollout import RolloutState, RolloutStatus, RolloutTerms, Step
from edgeloop_controller.core.rollout_queue import Claim
from edgeloop_controller.core.rollout_types import with_first_approval
from edgeloop_controller.core.shadow_phase import SHADOW_WAVE
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedInputError,
)
from edgeloop_controller.services.apply_step import apply_step
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.matching import matching_ids
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.store import devices, events, rollouts, shadow_phases, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Rollout, Version
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Name


class IfBusy(StrEnum):
    """What becomes of a rollout that overlaps an unfinished one on its slot."""

    REFUSE = "refuse"
    QUEUE = "queue"
    PREEMPT = "preempt"
    """The others are aborted: devices that committed keep what they have."""


@dataclass(frozen=True)
class RolloutRequest:
    name: str
    version: str
    selector: str
    waves: tuple[str, ...]
    terms: RolloutTerms
    slot: str = "main"
    allow_empty: bool = False
    if_busy: IfBusy = IfBusy.REFUSE
    training_run_id: int | None = None
    started_by: str = ""
    """Who has proved to be; empty: a machine, or who did not have to say."""


class Rollouts:
    def __init__(
        self,
        database: Database,
        desired: DesiredPublisher,
        clock: Clock,
        gate: SigningGate,
        *,
        two_persons: bool = False,
    ) -> None:
        """`two_persons`: wave 1 waits for a person who did not start it."""
        self._two_persons = two_persons
        self._database = database
        self._desired = desired
        self._clock = clock
        self._gate = gate

    def start(
        self, request: RolloutRequest, also: Callable[[Session, int], None] | None = None
    ) -> int:
        """The new rollout's id; its first devices are offered the version at the next tick. What
        `also` writes (given that id) is committed with it or not at all.

        Raises NotFoundError, SelectorError, WaveError, RefusedInputError or ConflictError.
        """
        if self._two_persons:
            request = replace(request, terms=with_first_approval(request.terms))
        selector = selectors.parse(request.selector)
        check_request(request)
        now = self._clock.wall()
        touched: set[str] = set()
        with self._database.writing() as session:
            version = versions.require(session, request.name, request.version)
            self._gate.require(version, request.slot)
            matching = matching_ids(session, selector)
            if not matching and not request.allow_empty:
                raise NotFoundError(
                    f"no device matches {request.selector!r}",
                    hint="see `edgeloop device list` for ids and labels, or pass --allow-empty "
                    "for devices that are yet to come",
                )
            claim = Claim(0, request.slot, request.selector, matching)
            busy = overlapping(session, claim)
            if busy and request.if_busy is IfBusy.REFUSE:
                raise _overlap_error(busy, claim)
            if request.if_busy is IfBusy.PREEMPT:
                reason = f"preempted by {version.name}@{version.version}"
                for other in busy:
                    touched |= self._write(
                        session,
                        rollouts.require(session, other.rollout_id),
                        lambda state: engine.abort(state, reason, now),
                    )
            waits = bool(busy) and request.if_busy is IfBusy.QUEUE
            if request.terms.shadow is not None and not waits:
                _refuse_beside_nothing(session, version, request.slot, matching)
            status = RolloutStatus.QUEUED if waits else RolloutStatus.RUNNING
            rollout = _new_row(version, request, status, now)
            session.add(rollout)
            session.flush()
            data = {
                "rollout": rollout.id,
                "selector": request.selector,
                "waves": list(request.waves),
                "devices": len(matching),
            }
            kind = "rollout.queued" if waits else "rollout.started"
            events.add(session, now, kind, f"{version.name}@{version.version}", data)
            rollout_id = rollout.id
            if also is not None:
                also(session, rollout_id)
        self._desired.publish(touched)
        return rollout_id

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

    def approve(self, rollout_id: int, wave: int | None, by: str, is_known: bool = False) -> int:
        """Let a wave begin, by default the next one that waits for it; which it was, 0 for the
        shadow phase, which is then over with what it has shown. `is_known`: who approves has
        proved to be `by`. Raises NotFoundError, RefusedInputError, ConflictError or
        ForbiddenError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            rollout = rollouts.require(session, rollout_id)
            chosen = _wave_to_approve(rollout, wave)
            if self._two_persons:
                _refuse_one_person(rollout, by, is_known)
            touched = self._write(session, rollout, lambda s: engine.approve(s, chosen, by))
            rollout.approvals = {**rollout.approvals, str(chosen): {"by": by, "at": now}}
        self._desired.publish(touched)
        return chosen

    def hold(self, rollout_id: int, device_id: str, reason: str) -> None:
        """Keep a device out. Raises NotFoundError or ConflictError."""
        now = self._clock.wall()
        self._change(
            rollout_id, lambda s: engine.hold(s, device_id, reason, now), device_id=device_id
        )

    def release(self, rollout_id: int, device_id: str) -> None:
        """Let it take part again. Raises NotFoundError or ConflictError."""
        self._change(rollout_id, lambda state: engine.release(state, device_id))

    def roll_back(self, rollout_id: int, to: tuple[str, str] | None, reason: str) -> None:
        """Halt it and take its version from all that have it, for what each had before or for the
        version `to` (name, version). Raises NotFoundError or ConflictError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            rollout = rollouts.require(session, rollout_id)
            other = versions.require(session, *to) if to else None
            if other is not None:
                self._gate.require(other, rollout.slot)
            digest = other.manifest_digest if other is not None else None
            if digest == rollout.manifest_digest:
                raise ConflictError(
                    "that is the version that the rollout brought", hint="name another one"
                )
            touched = self._write(
                session, rollout, lambda s: engine.roll_back(s, digest, reason, now)
            )
        self._desired.publish(touched)

    def _change(
        self, rollout_id: int, change: Callable[[RolloutState], Step], device_id: str | None = None
    ) -> None:
        with self._database.writing() as session:
            if device_id is not None:
                devices.require(session, device_id)
            touched = self._write(session, rollouts.require(session, rollout_id), change)
        self._desired.publish(touched)

    def _write(
        self, session: Session, rollout: Rollout, change: Callable[[RolloutState], Step]
    ) -> set[str]:
        before = rollouts.state_of(session, rollout)
        return apply_step(session, rollout, before, change(before), self._clock.wall())


def check_request(request: RolloutRequest) -> None:
    """Raises SelectorError, WaveError or RefusedInputError."""
    selectors.parse(request.selector)
    waves = parse_waves(",".join(request.waves))
    _check_slot(request.slot)
    beyond = [number for number in request.terms.schedule.approve if number > len(waves)]
    if beyond:
        raise RefusedInputError(
            f"wave {beyond[0]} is to be approved; there are {len(waves)}",
            hint=f"waves {', '.join(request.waves)} are numbered from 1",
        )


def _refuse_beside_nothing(
    session: Session, version: Version, slot: str, matching: set[str]
) -> None:
    """Of a first install. Devices that are yet to come may run something by then."""
    if matching and not matching & devices.running_other(session, slot, version.manifest_digest):
        raise RefusedInputError(
            f"no matching device runs another version on slot {slot}: "
            f"{version.name}@{version.version} has nothing to be in shadow beside",
            hint="leave --shadow (terms.shadow) out for a first install",
        )


def overlapping(session: Session, claim: Claim) -> list[Claim]:
    """Unfinished rollouts that want the same slot of the same devices."""
    claims = [
        Claim(
            other.id,
            other.slot,
            other.selector,
            matching_ids(session, selectors.parse(other.selector))
            | rollouts.members_of(session, other.id).keys(),
        )
        for other in rollouts.with_status(session, rollouts.UNFINISHED)
        if other.slot == claim.slot
    ]
    return [other for other in claims if other.overlaps(claim)]


def _wave_to_approve(rollout: Rollout, wave: int | None) -> int:
    terms = rollouts.terms_of(rollout)
    shadow = shadow_phases.from_document(rollout.shadow)
    if wave == SHADOW_WAVE and terms.shadow is None:
        raise RefusedInputError(
            "it has no shadow phase, which is what wave 0 stands for", hint="waves count from 1"
        )
    if wave == SHADOW_WAVE:
        return SHADOW_WAVE
    waits_in_shadow = shadow.is_overdue and shadow.ended_at is None
    if wave is None and waits_in_shadow and str(SHADOW_WAVE) not in rollout.approvals:
        return SHADOW_WAVE
    asked = terms.schedule.approve
    if wave is not None:
        if wave not in asked:
            waits = f"waves {', '.join(map(str, asked))} do" if asked else "no wave of it does"
            raise RefusedInputError(f"wave {wave} waits for no approval", hint=waits)
        return wave
    begun = rollout.wave + (rollout.wave_started_at is not None)
    open_ = [number for number in asked if number > begun and str(number) not in rollout.approvals]
    if not open_:
        raise ConflictError(f"rollout {rollout.id} waits for no approval")
    return open_[0]


def _refuse_one_person(rollout: Rollout, by: str, is_known: bool) -> None:
    if not is_known:
        raise ForbiddenError(
            "who approves has to be known: rollouts take two persons here",
            hint="send a token ([access] two_person_rollouts)",
        )
    if by == rollout.started_by:
        raise ForbiddenError(
            f"{by} started rollout {rollout.id} and cannot approve it",
            hint="another person has to: rollouts take two here ([access] two_person_rollouts)",
        )


def _check_slot(slot: str) -> None:
    try:
        TypeAdapter(Name).validate_python(slot)
    except ValidationError as error:
        raise RefusedInputError(
            f"slot {slot!r} is no name: letters, digits and _ . + - , a letter or digit first",
            hint="leave it out for the slot `main`",
        ) from error


def _overlap_error(busy: Sequence[Claim], claim: Claim) -> ConflictError:
    shared: Collection[str] = sorted(busy[0].shared(claim))
    named = ", ".join(sorted(shared)[:3]) + (", …" if len(shared) > 3 else "")
    first = busy[0].rollout_id
    return ConflictError(
        f"rollout {first} is not over on slot {claim.slot}"
        + (f", with {len(shared)} of the same devices ({named})" if shared else ""),
        hint="wait for it with --queue, end it with --preempt or "
        f"`edgeloop rollout abort {first}`, or narrow the selector",
    )


def _new_row(
    version: Version, request: RolloutRequest, status: RolloutStatus, now: float
) -> Rollout:
    state = engine.initial_state(status)
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
        started_by=request.started_by,
        ended_at=None,
        verdict=state.verdict,
        training_run_id=request.training_run_id,
    )
