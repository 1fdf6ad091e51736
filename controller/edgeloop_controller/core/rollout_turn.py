"""One turn of the rollout engine, from reports to effects (the table is in `core.rollout`).

Invariants: a Turn starts from one state and is thrown away after `result`; it never changes the
state that it was given.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from edgeloop_controller.core.gate_control import members_watched
from edgeloop_controller.core.rollout_fit import Unfit, by_id, matching
from edgeloop_controller.core.rollout_types import (
    DeviceView,
    Effect,
    Look,
    Member,
    MemberPhase,
    Note,
    OfferTo,
    RolloutSpec,
    RolloutState,
    RolloutStatus,
    Step,
    WithdrawFrom,
)
from edgeloop_controller.core.schedule import Chosen, Openings, UtcOffset, utc_everywhere
from edgeloop_controller.core.selector import parse
from edgeloop_controller.core.shadow_phase import Advance
from edgeloop_controller.core.waves import bound, entry_order
from edgeloop_protocol.lifecycle import RESTING, SlotState

EXPOSED = (MemberPhase.OFFERED, MemberPhase.COMMITTED, MemberPhase.FAILED)
"""Phases of members that take one of a wave's places."""

NAMES_SHOWN_MAX = 5


class Turn:
    """What one `step` works on: `members` and the wave as they become, and the effects so far."""

    def __init__(
        self,
        spec: RolloutSpec,
        state: RolloutState,
        devices: Sequence[DeviceView] | Mapping[str, DeviceView],
        now: float,
        utc_offset: UtcOffset = utc_everywhere,
    ) -> None:
        self.members: dict[str, Member] = dict(state.members)
        self._spec = spec
        self._state = state
        self.views = by_id(devices)
        self._matching = matching(parse(spec.selector), self.views)
        self._now = now
        self._utc_offset = utc_offset
        self._chosen = self._replacing = Chosen([])
        self._effects: list[Effect] = []
        self._moved = False
        self._look: Look | None = None
        self._shadow_until: float | None = None
        self._labelled = 0
        self._by_phase: dict[MemberPhase, list[Member]] | None = None
        self._fits: list[DeviceView] | None = None

    def result(self) -> Step:
        # The very members that came in, where none moved: a large fleet is compared by identity.
        state = replace(self._state, members=self.members) if self._moved else self._state
        until = (self._chosen.waits_until, self._replacing.waits_until, self._shadow_until)
        waits_until = min((time for time in until if time is not None), default=None)
        return Step(state, tuple(self._effects), waits_until)

    # ---- what the devices report ----------------------------------------------------------------

    def read_reports(self) -> None:
        """Settle offered members by what they report; note who does not fit, and who does again."""
        for member in self._in_phase(MemberPhase.OFFERED):
            view = self.views.get(member.device_id)
            if view is not None:
                self._settle(member, view)
        causes = Unfit(self._spec.manifest)
        unfit = {member.device_id for member in self._in_phase(MemberPhase.INELIGIBLE)}
        strangers = self._matching.keys() - self.members.keys()
        open_to_it = strangers | (unfit & self._matching.keys())
        for device_id in sorted(open_to_it):
            view = self._matching[device_id]
            self._check_fit(view, self.members.get(device_id), causes.of(view.inventory))

    @property
    def fit(self) -> Sequence[DeviceView]:
        """Those that the version may be offered to, by themselves."""
        return [] if self._spec.withheld else self._fit()

    def _settle(self, member: Member, view: DeviceView) -> None:
        """What stands from before this offer, such as an earlier refusal, is no answer."""
        reported = view.slots.get(self._spec.slot)
        target = self._spec.target.manifest_digest
        if reported is None or not view.has_seen_offer:
            return
        champion, refused = reported.champion, reported.refused
        if (
            reported.state is SlotState.COMMITTED
            and champion is not None
            and champion.manifest_digest == target
        ):
            self._put(member, MemberPhase.COMMITTED)
        elif refused is not None and refused.version.manifest_digest == target:
            cause = f"{refused.cause}: {refused.detail}" if refused.detail else refused.cause
            self._put(member, MemberPhase.FAILED, cause)
            self._note("rollout.device_failed", f"{view.id}: {cause}")

    def _check_fit(self, view: DeviceView, known: Member | None, cause: str) -> None:
        if not cause:
            if known is not None:
                del self.members[view.id]
                self._forget()
        elif known is None or known.cause != cause:
            self._set(Member(view.id, self._state.wave, MemberPhase.INELIGIBLE, cause=cause))

    # ---- going on, and stopping -----------------------------------------------------------------

    def halt(self, sentence: str) -> None:
        """Every member that was offered the version goes back; those that failed stay failed."""
        for member in list(self.members.values()):
            if member.phase not in EXPOSED:
                continue
            self._withdraw(member, sentence)
            if member.phase is MemberPhase.FAILED:
                self._set(member)
        self._state = replace(self._state, status=RolloutStatus.HALTED, verdict=sentence)
        self._note("rollout.halted", sentence)

    def take(self, phase: Advance) -> None:
        """What a turn of the shadow phase came to."""
        running = self._state.status is RolloutStatus.RUNNING
        verdict = phase.waits if running and phase.waits else self._state.verdict
        self._state = replace(self._state, shadow=phase.state, verdict=verdict)
        self._effects += phase.effects
        self._shadow_until = phase.waits_until
        if phase.halted:
            self.halt(f"halted in shadow: {phase.halted}")

    def withdraw_overdue(self) -> None:
        """While nobody has committed, a member that let its deadline pass gives its place to
        another device that is free and may be offered it now; where none is, it keeps it."""
        if self._in_phase(MemberPhase.COMMITTED) or self._last_wave():
            return
        overdue = [m for m in self._in_phase(MemberPhase.OFFERED) if self._overdue(m)]
        if not overdue:
            return
        self._replacing = self._choose(len(overdue))
        for member in overdue[: len(self._replacing.devices)]:
            cause = f"did not commit within {self._spec.terms.deadline_s:g} s"
            self._withdraw(member, cause)
            self._note("rollout.device_overdue", f"{member.device_id}: {cause}")

    def see_evidence(self, look: Look | None, labelled: int) -> None:
        """What the wave may have to wait for; `labelled` examples that both versions answered."""
        self._look, self._labelled = look, labelled

    def go_on(self, compared: int) -> None:
        """Fill the places; open the next wave, or end, as long as one shows what it must."""
        self._offer()
        while not self._lacks(compared):
            missing = self._uncompared(compared) or self._unwatched()
            if missing:
                detail = f"{self._wave_name()} {missing} in {self._spec.terms.deadline_s:g} s"
                self._note("rollout.not_compared", f"{detail}; the other gates hold")
            if self._last_wave():
                self._end(missing)
                return
            self._state = replace(self._state, wave=self._state.wave + 1, wave_started_at=self._now)
            if self._places() > 0 or self._last_wave():
                self._note_wave()
            self._offer()

    def explain(self, compared: int) -> None:
        """Say in the verdict what a running wave still has to show."""
        if self._state.status is RolloutStatus.RUNNING:
            lacks, missing = self._lacks(compared), self._uncompared(compared)
            verdict = f"{self._wave_name()} {lacks}"
            if self._state.wave > 0 and missing not in lacks:
                verdict += f"; the rollout {missing}"
            self._state = replace(self._state, verdict=verdict)

    def _end(self, missing: str) -> None:
        committed = len(self._in_phase(MemberPhase.COMMITTED))
        verdict = f"{committed} of {len(self._fit())} matching devices run {self._spec.target}"
        if missing:
            verdict += f"; the rollout {missing}"
        self._state = replace(self._state, status=RolloutStatus.DONE, verdict=verdict)
        self._note("rollout.done", verdict)

    def _lacks(self, compared: int) -> str:
        """What the current wave still has to show, in words; empty when nothing."""
        terms, started = self._spec.terms, self._state.wave_started_at
        if started is None:
            unapproved = self._unapproved(self._state.wave)
            return unapproved or self._chosen.kept or "waits for a device that is online and free"
        unsettled = sorted(
            m.device_id for m in self._in_phase(MemberPhase.OFFERED) if self._holds(m)
        )
        if unsettled:
            more = ", …" if len(unsettled) > NAMES_SHOWN_MAX else ""
            return f"waits for {', '.join(unsettled[:NAMES_SHOWN_MAX])}{more}"
        if not self._in_phase(MemberPhase.COMMITTED):
            return "waits for a device to commit"
        missing = self._uncompared(compared) or self._unwatched()
        members = self.members.values()
        if missing and self._now < deadline_of_wave(self._spec, started, members):
            return missing
        if self._now < soaks_since(self._spec, started, members) + terms.soak_s:
            return f"soaks for {terms.soak_s:g} s"
        if self._chosen.kept and self._places() > 0:
            return self._chosen.kept
        return "" if self._last_wave() else self._unapproved(self._state.wave + 1)

    def _unapproved(self, wave: int) -> str:
        """What a wave (from 0) waits for before it begins; empty: nothing."""
        number = wave + 1
        if number not in self._spec.terms.schedule.approve or number in self._state.approved:
            return ""
        return f"waits for approval of wave {number}"

    def _holds(self, member: Member) -> bool:
        view = self.views.get(member.device_id)
        online = view is not None and view.online
        return not self._overdue(member) and (online or not self._last_wave())

    def _overdue(self, member: Member) -> bool:
        offered_at = member.offered_at if member.offered_at is not None else self._now
        return self._now >= offered_at + self._spec.terms.deadline_s

    def _uncompared(self, compared: int) -> str:
        """What comparison still lacks, in words: an old version that answers nothing in shadow, or
        windows that were lost, hold a wave up until its deadline, not for ever."""
        wanted = self._spec.terms.min_compared
        if compared >= wanted or not self._must_compare():
            return ""
        return f"has compared {compared} of {wanted} examples"

    def _unwatched(self) -> str:
        """What the gates still lack to see a fault in this wave, in words. A lone canary looks for
        what is plain, and after the last wave there is nothing left to keep safe."""
        terms, look = self._spec.terms, self._look
        if self._last_wave():
            return ""
        alone = sum(len(self._in_phase(phase)) for phase in EXPOSED) == 1
        if 0 < self._labelled < terms.min_labelled and not alone:
            return f"has {self._labelled} of {terms.min_labelled} labelled examples"
        if look is None or not terms.control_group or look.wave != self._state.wave + 1:
            return ""
        watched, members = members_watched(look, terms.min_watched)
        if 2 * watched >= members:
            return ""
        return (
            f"has watched {watched} of {members} devices over {terms.min_watched} examples "
            "beside the control group"
        )

    def _must_compare(self) -> bool:
        target = self._spec.target.manifest_digest
        return self._spec.terms.probation.compare and any(
            member.before_digest not in (None, target)
            for member in self._in_phase(MemberPhase.COMMITTED)
        )

    # ---- offering -------------------------------------------------------------------------------

    def offer_to_latecomers(self) -> None:
        """What a done rollout goes on doing."""
        self._offer()

    def _offer(self) -> None:
        """Fill the wave's places: online devices first, in the rollout's own order."""
        places = self._places()
        self._chosen = Chosen([])
        if places > 0 and not (self._state.wave_started_at is None and self._unapproved(0)):
            self._chosen = self._choose(places)
        chosen = self._chosen.devices
        if chosen and self._state.wave_started_at is None:
            self._state = replace(self._state, wave_started_at=self._now)
            self._note_wave()
        for view in chosen:
            known = self.members.get(view.id)
            # One that was withdrawn may hold the target by now: it goes back to the old one.
            before = known.before_digest if known else _runs_now(view, self._spec.slot)
            self._set(
                Member(
                    view.id,
                    self._state.wave,
                    MemberPhase.OFFERED,
                    offered_at=self._now,
                    before_digest=before,
                )
            )
            self._effects.append(OfferTo(view.id, self._state.wave))

    def _choose(self, places: int) -> Chosen:
        if self._spec.withheld:
            return Chosen([], kept=self._spec.withheld)
        return self._openings().choose(self._candidates(), places)

    def _openings(self) -> Openings:
        return Openings(
            self._spec.terms, self.members.values(), self._fit(), self._now, self._utc_offset
        )

    def _candidates(self) -> list[DeviceView]:
        last = self._last_wave()
        free = [
            view
            for view in self._fit()
            if view.busy_with is None
            and (view.online or last)
            and (view.id not in self.members or (last and self._withdrawn(view)))
        ]
        return entry_order(self._spec.id, free, self._spec.terms.site_label)

    def _withdrawn(self, view: DeviceView) -> bool:
        return self.members[view.id].phase is MemberPhase.WITHDRAWN

    def _places(self) -> int:
        """Places of the current wave that are not taken; never fewer than an earlier wave's.

        Who holds the version counts although he matches no more: a selector may ask for the old
        one (`model.watch<2`), or a label may have moved."""
        exposed = {m.device_id for phase in EXPOSED for m in self._in_phase(phase)}
        matching = len(exposed.union(view.id for view in self._fit()))
        reached = self._spec.waves[: self._state.wave + 1]
        return max(bound(wave, matching) for wave in reached) - len(exposed)

    def _fit(self) -> list[DeviceView]:
        """Matching devices that are neither ineligible, nor held out, nor in quarantine."""
        if self._fits is None:
            apart = (MemberPhase.INELIGIBLE, MemberPhase.HELD)
            out = {member.device_id for phase in apart for member in self._in_phase(phase)}
            self._fits = [
                view
                for name, view in self._matching.items()
                if name not in out and not view.quarantine
            ]
        return self._fits

    # ---- small words ----------------------------------------------------------------------------

    def _last_wave(self) -> bool:
        return self._state.wave >= len(self._spec.waves) - 1

    def _in_phase(self, phase: MemberPhase) -> Sequence[Member]:
        """In the order of `members`, as they are now."""
        if self._by_phase is None:
            self._by_phase = {phase: [] for phase in MemberPhase}
            for member in self.members.values():
                self._by_phase[member.phase].append(member)
        return self._by_phase[phase]

    def _set(self, member: Member) -> None:
        self.members[member.device_id] = member
        self._forget()

    def _forget(self) -> None:
        """A member moved: what was derived from the members is to be derived again."""
        self._moved = True
        self._by_phase = self._fits = None

    def _put(self, member: Member, phase: MemberPhase, cause: str = "") -> None:
        self._set(replace(member, phase=phase, settled_at=self._now, cause=cause))

    def _withdraw(self, member: Member, cause: str) -> None:
        self._put(member, MemberPhase.WITHDRAWN, cause)
        self._effects.append(WithdrawFrom(member.device_id, member.before_digest, cause))

    def _note(self, kind: str, detail: str) -> None:
        self._effects.append(Note(kind, detail))

    def _note_wave(self) -> None:
        self._note("rollout.wave_started", self._wave_name())

    def _wave_name(self) -> str:
        return f"wave {self._state.wave + 1} of {len(self._spec.waves)}"


def deadline_of_wave(spec: RolloutSpec, started: float, members: Collection[Member]) -> float:
    """Beyond it a wave waits for nothing that may never come. Devices that trickle in do not move
    it; offers that the schedule spreads do."""
    if spec.terms.schedule.spreads:
        started = max([started, *(m.offered_at for m in members if m.offered_at is not None)])
    return started + spec.terms.deadline_s


def soaks_since(spec: RolloutSpec, started: float, members: Collection[Member]) -> float:
    """A soak is time spent with the version: it begins with the wave's last commit, or with its
    deadline."""
    commits = [m.settled_at or started for m in members if m.phase is MemberPhase.COMMITTED]
    return min(max([started, *commits]), deadline_of_wave(spec, started, members))


def _runs_now(view: DeviceView, slot: str) -> str | None:
    """What the device goes back to: what it runs when at rest, else what it is assigned.

    Not simply the assignment: a device that refused what it was assigned runs the one before. But
    one that has not seen its assignment yet may be on its way back from this very version.
    """
    reported = view.slots.get(slot)
    at_rest = reported is not None and reported.state in RESTING and view.has_seen_offer
    if at_rest and reported is not None and reported.champion is not None:
        return reported.champion.manifest_digest
    return view.assigned_digest
