"""One turn of a rollout's shadow phase: places, who has one, what is missing (the table is in
`core.shadow_phase`).

Invariants: a ShadowTurn starts from one state and is thrown away after `result`; it never changes
the state that it was given; what was taken back is not given again in the same turn.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgeloop_controller.core.rollout_types import (
    DeviceView,
    Effect,
    Note,
    RolloutSpec,
    RolloutState,
)
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_controller.core.shadow_types import (
    ShadowMember,
    ShadowOff,
    ShadowOn,
    ShadowOutcome,
    ShadowSeen,
    ShadowStage,
    ShadowState,
)
from edgeloop_controller.core.waves import entry_order
from edgeloop_protocol.lifecycle import RESTING, ChallengeState

REPLACED_MAX: Final = 100
"""Devices of one rollout that lose their place for being offline: what is remembered is bounded."""

CAUSES_SHOWN_MAX: Final = 3

SHADOW_WAVE: Final = 0
"""What a person approves who lets the phase be over: it comes before wave 1."""


def ended(
    shadow: ShadowState,
    reason: str,
    now: float,
    outcome: ShadowOutcome = ShadowOutcome.STOPPED,
) -> tuple[ShadowState, tuple[ShadowOff, ...]]:
    """It is over, by whatever came: who has the challenger is rid of it."""
    if shadow.ended_at is not None or shadow.began_at is None:
        return shadow, ()
    having = [member.device_id for member in shadow.members.values() if member.has_it]
    members = {
        name: _without(member, reason, now) if member.has_it else member
        for name, member in shadow.members.items()
    }
    over = replace(shadow, ended_at=now, members=members, outcome=outcome, said=reason)
    return over, tuple(ShadowOff(device_id, reason) for device_id in having)


def without(
    shadow: ShadowState, device_id: str, reason: str, now: float
) -> tuple[ShadowState, tuple[ShadowOff, ...]]:
    """One device is rid of the challenger, if it has it."""
    member = shadow.members.get(device_id)
    if member is None or not member.has_it:
        return shadow, ()
    members = {**shadow.members, device_id: _without(member, reason, now)}
    return replace(shadow, members=members), (ShadowOff(device_id, reason),)


def unable(spec: RolloutSpec, view: DeviceView) -> str:
    """Why a device that fits cannot have the challenger, whatever else it is; empty: it can."""
    reported = view.slots.get(spec.slot)
    champion = reported.champion if reported is not None else None
    if champion is None:
        return f"runs no version on slot {spec.slot} that it could run beside"
    if champion.manifest_digest == spec.target.manifest_digest:
        return f"runs {spec.target} already"
    return ""


def unfree(spec: RolloutSpec, view: DeviceView) -> str:
    """Why a device that could have it cannot have it now; empty: it can."""
    reported = view.slots[spec.slot]
    if view.busy_with is not None:
        return f"is held by rollout {view.busy_with}"
    if view.challenger_id is not None:
        return f"has challenger {view.challenger_id}"
    if not view.online:
        return "is offline"
    if reported.state not in RESTING or not view.has_seen_offer:
        return "is not at rest"
    return ""


def _without(member: ShadowMember, reason: str, now: float) -> ShadowMember:
    if member.stage is ShadowStage.REFUSED:
        return replace(member, taken_back_at=now)
    return replace(member, stage=ShadowStage.TAKEN_BACK, taken_back_at=now, cause=reason)


class ShadowTurn:
    """What one turn of the phase works on: its devices as they become, and the effects so far."""

    def __init__(
        self,
        spec: RolloutSpec,
        terms: ShadowTerms,
        state: RolloutState,
        fit: Sequence[DeviceView],
        seen: Sequence[ShadowSeen],
        now: float,
    ) -> None:
        self._spec, self._terms, self._rollout, self._now = spec, terms, state, now
        self._state = state.shadow
        self._able = {view.id: view for view in fit if not unable(spec, view)}
        self.members: dict[str, ShadowMember] = dict(state.shadow.members)
        target = spec.target.manifest_digest
        self.seen = [
            told
            for told in seen
            if told.device_id in self.members and told.champion.manifest_digest != target
        ]
        self.effects: list[Effect] = []

    @property
    def began_at(self) -> float | None:
        return self._state.began_at

    def result(self) -> ShadowState:
        # The very members that came in, where none moved: a state is compared by them.
        if self._state.ended_at is not None or self.members == self._state.members:
            return self._state
        return replace(self._state, members=self.members)

    def read_reports(self) -> None:
        """What devices say of it; who cannot have it any more is rid of it."""
        if self._state.began_at is None:
            self._state = replace(self._state, began_at=self._now)
            detail = f"{self._spec.target} beside the old version on {self._terms.devices} devices"
            self._note("rollout.shadow_started", detail)
        for member in [one for one in self.members.values() if one.has_it]:
            view = self._able.get(member.device_id)
            if view is None:
                self._take_back(member, "it may be offered the version no more")
            elif view.busy_with is not None:
                self._take_back(member, f"rollout {view.busy_with} took it")
            else:
                self._read(member, view)

    def _read(self, member: ShadowMember, view: DeviceView) -> None:
        """What it said before it saw the challenger is no answer."""
        reported = view.slots[self._spec.slot].challenger
        if member.stage is not ShadowStage.GIVEN or reported is None or not view.has_seen_offer:
            return
        refused = reported.state is ChallengeState.REFUSED
        if refused and reported.version.manifest_digest == self._spec.target.manifest_digest:
            cause = ": ".join(filter(None, (reported.cause, reported.detail)))
            self.members[view.id] = replace(member, stage=ShadowStage.REFUSED, cause=cause)
            self._note("rollout.shadow_refused", f"{view.id}: {cause}")

    def fill(self) -> None:
        """Give the challenger to as many as have a place; fresh devices first."""
        taken = sum(member.takes_place for member in self.members.values())
        places = max(0, self._places() - taken)
        if not places and not any(self._is_away(member) for member in self.members.values()):
            return  # a large fleet is not put in order for nobody
        free = [view for view in self._able.values() if self._is_free(view)]
        order = entry_order(self._spec.id, free, self._spec.terms.site_label)
        order.sort(key=lambda view: view.id in self.members)
        for view in order[:places]:
            self._give(view)
        spare = [view for view in order[places:] if view.id not in self.members]
        away = [member for member in self.members.values() if self._is_away(member)]
        for member, view in zip(away, spare[: self._replaceable()], strict=False):
            self._take_back(member, "it went offline, and another device was free")
            self._state = replace(self._state, replaced=self._state.replaced + 1)
            self._give(view)

    def go_on(self) -> str:
        """What it waits for, in words; empty when it is over."""
        missing = self._missing()
        if not missing or SHADOW_WAVE in self._rollout.approved:
            if missing:
                self.end(f"a person let it go on: it {missing}", ShadowOutcome.LET_GO_ON)
            else:
                self.end(f"its gates hold: {self._compared()}", ShadowOutcome.HELD)
            self._note("rollout.shadow_over", self._state.said)
            return ""
        assert self._state.began_at is not None  # by `read_reports`
        if self._now < self._state.began_at + self._terms.deadline_s:
            return f"the shadow phase {missing}"
        rollout = self._spec.id
        waits = (
            f"the shadow phase {missing}, after {self._terms.deadline_s:g} s: it waits for a "
            f"person, or for more (`edgeloop rollout approve {rollout}` lets wave 1 begin)"
        )
        if not self._state.is_overdue:
            self._state = replace(self._state, is_overdue=True)
            self._note("rollout.shadow_overdue", waits)
        return waits

    def end(self, reason: str, outcome: ShadowOutcome) -> None:
        state = replace(self._state, members=self.members)
        self._state, effects = ended(state, reason, self._now, outcome)
        self.members = dict(self._state.members)
        self.effects += effects

    def _missing(self) -> str:
        """Of what it must show, in words."""
        having = [member for member in self.members.values() if member.takes_place]
        places = self._places()
        if not places:
            return f"waits for a device that runs another version on slot {self._spec.slot}"
        if len(having) < places:
            waits = f"has {len(having)} of {places} devices: it waits for one that is free"
            return f"{waits}{self._unfree()}"
        wanted, compared = self._terms.min_compared, self._by_device()
        asked = [member for member in having if member.stage is ShadowStage.GIVEN]
        enough = sum(compared.get(member.device_id, 0) >= wanted for member in asked)
        if enough < len(asked):
            return f"has compared {wanted} examples on {enough} of {len(asked)} devices"
        first = min(member.given_at for member in self.members.values())
        if self._now < first + self._terms.soak_s:
            return f"soaks for {self._terms.soak_s:g} s"
        return ""

    def _unfree(self) -> str:
        """Why the others are not, in words; the most frequent causes first."""
        others = (view for name, view in self._able.items() if not self._has_place(name))
        causes = Counter(cause for view in others if (cause := unfree(self._spec, view)))
        said = [f"{cause}: {many}" for cause, many in causes.most_common(CAUSES_SHOWN_MAX)]
        return f" ({', '.join(said)})" if said else ""

    def _has_place(self, device_id: str) -> bool:
        member = self.members.get(device_id)
        return member is not None and member.takes_place

    def _compared(self) -> str:
        by_device = self._by_device()
        devices = len([count for count in by_device.values() if count])
        named = f"{devices} device" if devices == 1 else f"{devices} devices"
        return f"compared {sum(by_device.values())} examples on {named}"

    def _by_device(self) -> dict[str, int]:
        """Examples that came to an end there, answered or not."""
        found: dict[str, int] = {}
        for told in self.seen:
            before = found.get(told.device_id, 0)
            found[told.device_id] = before + told.count + told.failed
        return found

    def _places(self) -> int:
        """As many as are asked for; fewer where fewer devices there are could ever have one."""
        taken = {name for name, member in self.members.items() if member.takes_place}
        return min(self._terms.devices, len(taken | self._able.keys()))

    def _is_free(self, view: DeviceView) -> bool:
        return not self._has_place(view.id) and not unfree(self._spec, view)

    def _is_away(self, member: ShadowMember) -> bool:
        """One that refused it has given its answer."""
        given = member.has_it and member.stage is ShadowStage.GIVEN
        return given and not self._able[member.device_id].online

    def _replaceable(self) -> int:
        return max(0, REPLACED_MAX - self._state.replaced)

    def _give(self, view: DeviceView) -> None:
        self.members[view.id] = ShadowMember(view.id, ShadowStage.GIVEN, given_at=self._now)
        self.effects.append(ShadowOn(view.id))

    def _take_back(self, member: ShadowMember, reason: str) -> None:
        self.members[member.device_id] = _without(member, reason, self._now)
        self.effects.append(ShadowOff(member.device_id, reason))
        self._note("rollout.shadow_left", f"{member.device_id}: {reason}")

    def _note(self, kind: str, detail: str) -> None:
        self.effects.append(Note(kind, detail))
