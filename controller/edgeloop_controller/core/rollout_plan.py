"""What a rollout would do, before anybody is offered anything: the engine itself, played forward.

Every device that it offers to is taken to install in `install_s` and to commit, every gate to hold,
every approval to come at once and nothing else to change; so the end is the earliest that the
schedule allows, and the real one comes later.

Invariants: pure; the devices of each wave are those that `core.rollout.step` chooses.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edgeloop_controller.core.rollout import (
    ComparedWindow,
    DeviceView,
    Evidence,
    MemberPhase,
    OfferTo,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    ShadowOn,
    ShadowSeen,
    Step,
    asks_again_at,
    initial_state,
    step,
)
from edgeloop_controller.core.rollout_fit import matching
from edgeloop_controller.core.schedule import MINUTE_S, UtcOffset, utc_everywhere
from edgeloop_controller.core.selector import parse
from edgeloop_controller.core.shadow_phase import unable, unfree
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import SlotReported

LOOKS_MAX: Final = 5_000_000
"""At devices, in one plan: what would take more is not played to its end."""
HORIZON_S: Final = 366 * 86_400.0
"""A rollout that would take longer is not planned to its end."""


@dataclass(frozen=True)
class PlannedWave:
    """`ends_at`: when the next one could begin; None: not within the horizon."""

    number: int
    devices: tuple[str, ...]
    begins_at: float
    ends_at: float | None


@dataclass(frozen=True)
class Cause:
    """Why devices that match would not be offered it."""

    cause: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class PlannedShadow:
    """`devices`: who would have it as a challenger before the first wave; `cannot`: who would not
    and why, where fewer have it than were asked for. `ends_at`: at the earliest; None: not by
    itself."""

    devices: tuple[str, ...]
    asked: int
    begins_at: float | None
    ends_at: float | None
    cannot: tuple[Cause, ...]


@dataclass(frozen=True)
class Plan:
    """`later`: devices that are offline, or come too late: they get it when they are back."""

    matching: int
    waves: tuple[PlannedWave, ...]
    cannot: tuple[Cause, ...]
    later: tuple[str, ...]
    has_it: tuple[str, ...]
    """Devices that run the version already; they are offered it all the same, at no cost."""
    ends_at: float | None
    waits: str
    """Where it would stay, in words, if it does not end."""
    is_cut_short: bool
    """Too much to play: what is said of waves is the beginning, and of the end the least."""
    shadow: PlannedShadow | None = None
    """None: none is asked for."""


def plan(
    spec: RolloutSpec,
    devices: Mapping[str, DeviceView],
    now: float,
    install_s: float,
    utc_offset: UtcOffset = utc_everywhere,
) -> Plan:
    """`devices`: all; `install_s`: from an offer to a commit, where a probation lasts no longer."""
    found = matching(parse(spec.selector), devices)
    played = _Play(spec, found, now, install_s, utc_offset)
    played.run()
    reached = {m for wave in played.waves for m in wave.devices}
    causes = _causes(played.state, found)
    unable = {device for cause in causes for device in cause.devices}
    target = spec.target.manifest_digest
    return Plan(
        matching=len(found),
        waves=tuple(played.waves),
        cannot=tuple(causes),
        later=tuple(sorted(found.keys() - reached - unable)),
        has_it=tuple(sorted(d for d in reached if _runs(found[d], spec.slot) == target)),
        ends_at=played.ends_at(),
        waits="" if played.state.status is RolloutStatus.DONE else played.state.verdict,
        is_cut_short=played.is_cut_short,
        shadow=_shadow(spec, found, played),
    )


class _Play:
    def __init__(
        self,
        spec: RolloutSpec,
        devices: Mapping[str, DeviceView],
        now: float,
        install_s: float,
        utc_offset: UtcOffset,
    ) -> None:
        every_wave = frozenset(range(1, len(spec.waves) + 1))
        self._spec = spec
        self._views = dict(devices)
        self._began = self.now = now
        self._takes_s = max(install_s, spec.terms.probation.min_s)
        self._utc_offset = utc_offset
        self._commits: dict[str, float] = {}
        self._evidence: list[ComparedWindow] = []
        self._shadowed: list[ShadowSeen] = []
        self.state = replace(initial_state(), approved=every_wave)
        self.waves: list[PlannedWave] = []
        self.is_cut_short = False

    def ends_at(self) -> float | None:
        """None: it does not end."""
        pace = self._spec.terms.schedule.pace_per_min
        if self.is_cut_short:
            return max(self.now, self._began + len(self._views) / pace * MINUTE_S if pace else 0.0)
        return self.now if self.state.status is RolloutStatus.DONE else None

    def run(self) -> None:
        """Until it ends, stays, or was looked at for too long."""
        for looked in itertools.count(1):
            self._commit_due()
            result = step(
                self._spec,
                self.state,
                self._views,
                Evidence(self._evidence, shadow=self._shadowed),
                self.now,
                self._utc_offset,
            )
            self._note(result)
            self.state = result.state
            after = self._next(result)
            if self.state.status is not RolloutStatus.RUNNING or after is None:
                break
            too_much = looked * len(self._views) > LOOKS_MAX
            if too_much or after - self._began > HORIZON_S:
                self.is_cut_short = True
                break
            self.now = after

    def _note(self, result: Step) -> None:
        offered: dict[int, list[str]] = {}
        for effect in result.effects:
            if isinstance(effect, OfferTo):
                offered.setdefault(effect.wave, []).append(effect.device_id)
                self._commits[effect.device_id] = self.now + self._takes_s
                # What it reports now, such as an earlier refusal, is no answer to this offer.
                view = self._views[effect.device_id]
                self._views[effect.device_id] = replace(view, has_seen_offer=False)
            elif isinstance(effect, ShadowOn):
                self._shadow(effect.device_id)
        for index, names in offered.items():
            if len(self.waves) <= index:
                self._end_wave()
                self.waves.append(PlannedWave(index + 1, (), self.now, None))
            wave = self.waves[-1]
            self.waves[-1] = replace(wave, devices=(*wave.devices, *names))
        if result.state.status is RolloutStatus.DONE:
            self._end_wave()

    def _shadow(self, device_id: str) -> None:
        """Its examples are taken to come at once: the soak is the least that it takes."""
        terms, reported = self._spec.terms.shadow, self._views[device_id].slots[self._spec.slot]
        assert terms is not None  # it has a shadow phase
        assert reported.champion is not None  # beside which it is
        count = terms.min_compared
        self._shadowed.append(ShadowSeen(device_id, reported.champion, count, 0, 0, 0, 0))

    def _end_wave(self) -> None:
        if self.waves:
            self.waves[-1] = replace(self.waves[-1], ends_at=self.now)

    def _commit_due(self) -> None:
        due = [device for device, at in self._commits.items() if at <= self.now]
        for device_id in due:
            del self._commits[device_id]
            view = self._views[device_id]
            slot = SlotReported(
                slot=self._spec.slot, state=SlotState.COMMITTED, champion=self._spec.target
            )
            slots = {**view.slots, self._spec.slot: slot}
            self._views[device_id] = replace(view, slots=slots, has_seen_offer=True)
            before = view.slots.get(self._spec.slot)
            if before is not None and before.champion is not None:
                enough = max(1, self._spec.terms.min_compared)
                self._evidence.append(ComparedWindow(device_id, before.champion, enough, 0))

    def _next(self, result: Step) -> float | None:
        # Offline members of the last wave commit nothing that anybody waits for.
        online = (at for d, at in self._commits.items() if self._views[d].online)
        times = [asks_again_at(self._spec, self.state, self.now), result.waits_until, *online]
        return min((time for time in times if time is not None and time > self.now), default=None)


def _causes(state: RolloutState, devices: Mapping[str, DeviceView]) -> list[Cause]:
    by_cause: dict[str, list[str]] = {}
    for device_id, view in sorted(devices.items()):
        member = state.members.get(device_id)
        if view.quarantine:
            by_cause.setdefault(f"in quarantine: {view.quarantine}", []).append(device_id)
        elif member is not None and member.phase is MemberPhase.INELIGIBLE:
            by_cause.setdefault(member.cause, []).append(device_id)
        elif view.busy_with is not None:
            by_cause.setdefault(f"held by rollout {view.busy_with}", []).append(device_id)
    return [Cause(cause, tuple(ids)) for cause, ids in by_cause.items()]


def _shadow(
    spec: RolloutSpec, devices: Mapping[str, DeviceView], played: _Play
) -> PlannedShadow | None:
    terms, state = spec.terms.shadow, played.state.shadow
    if terms is None:
        return None
    cannot: dict[str, list[str]] = {}
    if len(state.members) < terms.devices:
        for device_id, view in sorted(devices.items()):
            if device_id not in state.members:
                why = unable(spec, view) or unfree(spec, view)
                cannot.setdefault(why or "is kept out of the rollout", []).append(device_id)
    return PlannedShadow(
        devices=tuple(state.members),
        asked=terms.devices,
        begins_at=state.began_at,
        ends_at=state.ended_at,
        cannot=tuple(Cause(cause, tuple(ids)) for cause, ids in cannot.items()),
    )


def _runs(view: DeviceView, slot: str) -> str | None:
    reported = view.slots.get(slot)
    return reported.champion.manifest_digest if reported and reported.champion else None
