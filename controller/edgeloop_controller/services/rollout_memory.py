"""What the reconciler remembers of a rollout between ticks, so that a tick costs what changed.

Invariants: everything here can be read again from the database, and is after a restart; `state`
holds what the database holds at the row's `change`; a rollout is passed over only if its last step
changed nothing and nothing that a step reads has changed since, time included.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from edgeloop_controller.core import selector as selectors
from edgeloop_controller.core.rollout import (
    DeviceView,
    MemberPhase,
    RolloutSpec,
    RolloutState,
    Step,
    Verdict,
    asks_again_at,
)
from edgeloop_controller.core.selector import Selector
from edgeloop_controller.services.control_log import ControlLog
from edgeloop_controller.services.evidence import EvidenceLog
from edgeloop_controller.services.fleet import KnownDevice
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.shadow_log import ShadowLog
from edgeloop_controller.store import rollouts
from edgeloop_controller.store.rollouts import RolloutRow

HOLDING = (MemberPhase.OFFERED, MemberPhase.COMMITTED)
"""Phases of members that an active rollout keeps others from."""


@dataclass(frozen=True)
class Judged:
    """What the gates of a rollout said when they were asked last."""

    spec: RolloutSpec
    verdicts: tuple[Verdict, ...]


@dataclass
class _Rest:
    """A step at `since` changed nothing; from `until` on (None: ever) it may."""

    since: float
    until: float | None

    def lasts(self, now: float) -> bool:
        return self.since <= now and (self.until is None or now < self.until)


@dataclass
class RolloutMemory:
    id: int
    slot: str
    selector: Selector
    control: ControlLog
    shadow: ShadowLog
    evidence: EvidenceLog = field(default_factory=EvidenceLog)
    matching: set[str] = field(default_factory=set)
    """Ids of devices that match the selector, as of the last `see`."""
    matching_moved: int = 0
    """Counts what entered and left `matching`."""
    views: dict[str, DeviceView] = field(default_factory=dict)
    """Of devices that match or are members, and that no newer finished rollout speaks for."""
    withheld: str = ""
    """Why the version may be offered to nobody, as of the last `withhold`."""
    judged: Judged | None = None
    """None before the first step."""
    _state: RolloutState | None = None
    _change: int = -1
    _holds: frozenset[str] | None = None
    _stale: set[str] = field(default_factory=set)
    _held: Sequence[tuple[int, frozenset[str]]] = ()
    _holders: Mapping[str, int] = field(default_factory=dict)
    _excluded: Set[str] = frozenset()
    _rest: _Rest | None = None

    @classmethod
    def of(cls, rollout: RolloutRow, registry: Registry) -> "RolloutMemory":
        selector = selectors.parse(rollout.selector)
        logs = ControlLog(registry), ShadowLog(registry)
        return cls(rollout.id, rollout.slot, selector, *logs)

    def see(self, changed: Set[str], fleet: Mapping[str, KnownDevice]) -> None:
        """Devices that changed or are new."""
        for device_id in changed:
            matches = self.selector.matches(fleet[device_id])
            if matches != (device_id in self.matching):
                (self.matching.add if matches else self.matching.discard)(device_id)
                self.matching_moved += 1
        if changed:
            self.control.forget_look()
        self._mark(changed)

    def read_evidence(self, session: Session, rollout: RolloutRow, now: float) -> bool:
        """What came since the last time; True if anything did."""
        paired = self.evidence.read(session, rollout)
        shadowed = self.shadow.read(session, rollout)
        looked = self.control.read(session, rollout, len(self.matching), now)
        return looked or paired or shadowed

    def state(self, session: Session, rollout: RolloutRow) -> RolloutState:
        """Read again if it is not this memory that wrote it last."""
        if self._state is None or self._change != rollout.change:
            state = rollouts.state_of(session, rollout)
            self._put(state, rollout.change)
            self._rest = None
            self._stale |= state.members.keys()
        assert self._state is not None
        return self._state

    def holds(self, session: Session, rollout: RolloutRow) -> frozenset[str]:
        """Devices whose slot no other rollout may touch while this one is active."""
        members = self.state(session, rollout).members.values()
        if self._holds is None:
            self._holds = frozenset(m.device_id for m in members if m.phase in HOLDING)
        return self._holds

    def gather(
        self,
        fleet: Mapping[str, KnownDevice],
        held: Sequence[tuple[int, frozenset[str]]],
        excluded: Set[str],
    ) -> None:
        """Bring `views` up to date. `held`: other active rollouts of the slot, and what each
        holds."""
        if held != self._held:
            holders = {device_id: holder for holder, ids in held for device_id in ids}
            self._mark({device_id for device_id, _ in self._holders.items() ^ holders.items()})
            self._held, self._holders = held, holders
        if excluded is not self._excluded:
            self._mark(excluded ^ self._excluded)
            self._excluded = excluded
        members = self._state.members if self._state else {}
        for device_id in self._stale:
            concerned = device_id in self.matching or device_id in members
            if concerned and device_id not in excluded and device_id in fleet:
                self.views[device_id] = fleet[device_id].view(
                    self.slot, self._holders.get(device_id)
                )
            else:
                self.views.pop(device_id, None)
        self._stale.clear()

    def withhold(self, why: str) -> None:
        """Or let go: with an empty text."""
        if why != self.withheld:
            self.withheld = why
            self.wake()

    def wake(self) -> None:
        """Something else that a step reads has changed."""
        self._rest = None

    def rests(self, now: float) -> bool:
        return self._rest is not None and self._rest.lasts(now)

    def says_anew(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether the gates say something else than when they were asked last."""
        return self.judged is None or self.judged.verdicts != verdicts

    def stepped(self, spec: RolloutSpec, result: Step, change: int, now: float) -> None:
        """What a step came to, once it is committed."""
        if result.verdicts:
            self.judged = Judged(spec, result.verdicts)
        rests = self._state is not None and not result.effects and result.state == self._state
        if not rests:
            self._put(result.state, change)
        times = [asks_again_at(spec, result.state, now), result.waits_until]
        until = min((time for time in times if time is not None), default=None)
        self._rest = _Rest(now, until) if rests else None

    def _put(self, state: RolloutState, change: int) -> None:
        self._state, self._change, self._holds = state, change, None

    def _mark(self, ids: Set[str]) -> None:
        if ids:
            self._stale |= ids
            self._rest = None
