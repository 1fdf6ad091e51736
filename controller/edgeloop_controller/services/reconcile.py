"""The reconciler: for each rollout, look, decide (`core.rollout.step`), write, commit, then say.

Invariants: one transaction holds a decision and all that follows from it, so a kill at any moment
loses nothing but words, which are said again; a rollout whose step fails does not stop the others;
what is remembered between ticks (services.fleet, services.rollout_memory) is brought up to date in
the transaction that decides.
"""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import (
    Evidence,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    start,
    step,
)
from edgeloop_controller.core.rollout_queue import Claim, startable
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.services.apply_step import apply_step
from edgeloop_controller.services.challenger_turn import ChallengerTurn
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.fleet import Fleet
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.rollout_memory import Judged, RolloutMemory
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.services.silence import Silence
from edgeloop_controller.services.timezones import utc_offset
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store import challengers, rollouts, verdicts
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.rollouts import RolloutRow
from edgeloop_controller.store.tables import Rollout
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

LOOKED_AT: Final = (*rollouts.UNFINISHED, RolloutStatus.DONE.value)


class Reconciler:
    """`tick` is called by the scheduler, never twice at once."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        publisher: DesiredPublisher,
        unheard: Unheard,
        clock: Clock,
        offline_after_s: float | None,
        gate: SigningGate | None = None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._publisher = publisher
        self._unheard = unheard
        self._clock = clock
        self._gate = gate
        self._silence = Silence(database, clock, offline_after_s)
        self._fleet = Fleet()
        self._challengers = ChallengerTurn()
        self._memories: dict[int, RolloutMemory] = {}
        self._excluded_ids: dict[int, Set[str]] = {}
        self._excluded_for: tuple[object, ...] = ()
        self._failures = FailureLog(logger)

    def tick(self) -> None:
        self._silence.notice()
        self._guarded("queued rollouts", self._start_queued)
        for rollout_id in self._due():
            try:
                touched = self._turn(rollout_id)
            except Exception:
                self._memories.pop(rollout_id, None)
                self._failures.failed(f"rollout {rollout_id}")
                continue
            self._failures.worked(f"rollout {rollout_id}")
            self._publisher.publish(touched)
        self._guarded("challengers", self._challenge)
        self._publisher.say_again()
        self._unheard.ask_again()

    def _guarded(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self._failures.failed(what)
        else:
            self._failures.worked(what)

    def _start_queued(self) -> None:
        with self._database.reading() as session:
            queued = rollouts.rows_with_status(session, (RolloutStatus.QUEUED.value,))
            if not queued or not self._startable(session):
                return
        with self._database.writing() as session:
            for rollout_id in self._startable(session):
                rollout = rollouts.require(session, rollout_id)
                before = rollouts.state_of(session, rollout)
                apply_step(session, rollout, before, start(before), self._clock.wall())

    def _startable(self, session: Session) -> list[int]:
        found = self._look(session)[::-1]
        queued = [self._claim(session, r) for r in found if r.status == RolloutStatus.QUEUED]
        active = [self._claim(session, r) for r in found if r.status in rollouts.ACTIVE]
        return startable(queued, active)

    def _claim(self, session: Session, rollout: RolloutRow) -> Claim:
        memory = self._memory(rollout)
        devices = memory.matching | memory.state(session, rollout).members.keys()
        return Claim(rollout.id, rollout.slot, rollout.selector, devices)

    def _challenge(self) -> None:
        """Give challengers to the devices that are to have them, and take them from the others."""
        with self._database.reading() as session:
            withheld = self._withheld_challengers(session)
            if not self._challengers.is_due(session, withheld):
                return
        with self._database.writing() as session:
            self._look(session)
            assigned = self._challengers.assign(session, self._fleet.devices, withheld)
        self._challengers.committed(assigned)
        self._publisher.publish(assigned.touched)

    def judged(self) -> list[Judged]:
        """What the gates of each rollout said when they were asked last; it waits for nothing and
        changes nothing."""
        return [memory.judged for memory in self._memories.values() if memory.judged]

    def _due(self) -> list[int]:
        """Rollouts that a step may change: active ones first, then finished ones."""
        now = self._clock.wall()
        with self._database.reading() as session:
            found = self._look(session)
            unfinished = {r.id for r in found if r.status in rollouts.UNFINISHED}
            kept = unfinished | self._excluded(found).keys()
            self._memories = {k: memory for k, memory in self._memories.items() if k in kept}
            due = [
                r
                for r in found
                if r.id in kept
                and r.status != RolloutStatus.QUEUED
                and self._may_move(session, r, found, now)
            ]
        return [r.id for r in sorted(due, key=lambda r: r.status not in rollouts.ACTIVE)]

    def _may_move(
        self, session: Session, rollout: RolloutRow, found: Sequence[RolloutRow], now: float
    ) -> bool:
        try:
            return not self._rests(session, rollout, found, now)
        except Exception:  # its turn fails by the same, where that is told and stops no other
            return True

    def _turn(self, rollout_id: int) -> set[str]:
        """The devices that are to be told."""
        now = self._clock.wall()
        with self._database.writing() as session:
            found = self._look(session)
            row = next((one for one in found if one.id == rollout_id), None)
            if row is None or self._rests(session, row, found, now):
                return set()
            memory, state = self._memory(row), self._memory(row).state(session, row)
            rollout = rollouts.require(session, rollout_id)
            spec = replace(self._spec(rollout), withheld=memory.withheld)
            active = rollout.status in rollouts.ACTIVE
            seen = self._evidence(memory, rollout, state) if active else Evidence()
            result = step(spec, state, memory.views, seen, now, utc_offset)
            rests = not result.effects and result.state == state
            touched = set() if rests else apply_step(session, rollout, state, result, now)
            if result.verdicts and memory.says_anew(result.verdicts):
                verdicts.save(session, rollout, result.verdicts, now)
        memory.stepped(spec, result, rollout.change, now)
        return touched

    def _evidence(self, memory: RolloutMemory, rollout: Rollout, state: RolloutState) -> Evidence:
        paired = memory.evidence.of_members(state.members, self._registry)
        look = memory.control.look(rollout, state.members, memory.matching, self._fleet.devices)
        return replace(paired, look=look, shadow=memory.shadow.seen(state.shadow.members))

    def _look(self, session: Session) -> Sequence[RolloutRow]:
        """Bring what is remembered of devices up to date; the rollouts, newest first."""
        changed = self._fleet.refresh(session)
        for memory in self._memories.values():
            memory.see(changed, self._fleet.devices)
        self._challengers.see(changed)
        return rollouts.rows_with_status(session, LOOKED_AT)

    def _rests(
        self, session: Session, rollout: RolloutRow, found: Sequence[RolloutRow], now: float
    ) -> bool:
        """Brings the rollout's memory up to date to say so."""
        memory = self._memory(rollout)
        memory.state(session, rollout)
        memory.withhold(self._withheld(session, rollout))
        if rollout.status in rollouts.ACTIVE and memory.read_evidence(session, rollout, now):
            memory.wake()
        held = [
            (other.id, self._memory(other).holds(session, other))
            for other in found
            if other.status in rollouts.ACTIVE
            and other.slot == rollout.slot
            and other.id != rollout.id
        ]
        speaking = self._excluded(found)
        if rollout.status == RolloutStatus.DONE and rollout.id not in speaking:
            return True
        excluded = speaking.get(rollout.id, frozenset())
        memory.gather(self._fleet.devices, held, excluded)
        return memory.rests(now)

    def _excluded(self, found: Sequence[RolloutRow]) -> Mapping[int, Set[str]]:
        """Finished rollouts that speak for a device still → the devices that a newer finished one
        speaks for."""
        done = [r for r in found if r.status == RolloutStatus.DONE]
        if self._excluded_for != self._matching_of(done):
            self._excluded_ids = self._find_excluded(done)
            self._excluded_for = self._matching_of(done)
        return self._excluded_ids

    def _matching_of(self, done: Sequence[RolloutRow]) -> tuple[object, ...]:
        """What `_find_excluded` depends on."""
        moved = [(r.id, m.matching_moved) for r in done if (m := self._memories.get(r.id))]
        return len(self._fleet.devices), [r.id for r in done], moved

    def _find_excluded(self, done: Sequence[RolloutRow]) -> dict[int, Set[str]]:
        taken: dict[str, set[str]] = {}
        excluded: dict[int, Set[str]] = {}
        for rollout in done:
            claimed = taken.setdefault(rollout.slot, set())
            if len(claimed) < len(self._fleet.devices):
                excluded[rollout.id] = frozenset(claimed)
                claimed |= self._memory(rollout).matching
        return excluded

    def _memory(self, rollout: RolloutRow) -> RolloutMemory:
        memory = self._memories.get(rollout.id)
        if memory is None:
            memory = self._memories[rollout.id] = RolloutMemory.of(rollout, self._registry)
            memory.see(self._fleet.devices.keys(), self._fleet.devices)
        return memory

    def _withheld_challengers(self, session: Session) -> frozenset[int]:
        """Those that began before trust did, and that nobody signed."""
        gate = self._gate
        if gate is None or not gate.is_on:
            return frozenset()
        return frozenset(
            row.id
            for row in challengers.active(session)
            if gate.withheld(session, row.manifest_digest, row.slot) is not None
        )

    def _withheld(self, session: Session, rollout: RolloutRow) -> str:
        """Why its version may be offered to nobody now; empty: it may."""
        if self._gate is None:
            return ""
        unsigned = self._gate.withheld(session, rollout.manifest_digest, rollout.slot)
        return f"waits: {unsigned}" if unsigned is not None else ""

    def _spec(self, rollout: Rollout) -> RolloutSpec:
        manifest = self._registry.manifest(rollout.manifest_digest)
        return RolloutSpec(
            id=rollout.id,
            target=manifest.ref(),
            manifest=manifest,
            slot=rollout.slot,
            selector=rollout.selector,
            waves=parse_waves(",".join(rollout.waves)),
            terms=rollouts.terms_of(rollout),
        )
