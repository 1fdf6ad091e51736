"""A challenger's way from an offer into the shadow of the champion (ADR 0021).

Invariants: it never keeps the slot's champion or candidate from anything: it runs only while the
champion serves and nothing is tried; a try is counted durably before it, and tries are bounded; a
failure names a cause, and the version is refused until the controller wants another one there.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edgeloop_agent.core import acquisition, probation, trust
from edgeloop_agent.core.acquisition import Admitted, Refuse, Wait
from edgeloop_agent.core.effects import AppendEvent, Effect, FetchArtifact, FetchManifest
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    ManifestFetched,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.core.lifecycle import ChallengeSignal, challenge_after
from edgeloop_agent.core.runners import Role, Runner, RunnerSet, WantedChallenger
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import Challenge, SlotSnapshot
from edgeloop_agent.core.waiting import Waiting
from edgeloop_agent.core.wanted import TRYING
from edgeloop_protocol.lifecycle import ChallengeState
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Challenger, Refusal

RUNS: Final = frozenset({ChallengeState.STAGED, ChallengeState.IN_SHADOW})


class ChallengerTrack:
    """Of one slot. `durable` is what shall survive a power cut, `journalled` what will."""

    def __init__(
        self,
        durable: Challenge | None,
        runners: RunnerSet,
        settings: CoreSettings,
        jitter: Callable[[], float],
    ) -> None:
        self.durable = self.journalled = durable
        self._runners = runners
        self._slot = runners.slot
        self._settings = settings
        self._waiting = Waiting(jitter)
        self._fetch: FetchManifest | FetchArtifact | None = None
        self._notes: list[Effect] = []
        self._is_counted = False
        """A try was counted that no runner has begun."""
        self._is_quiet = True
        """When it was settled last it had no runner."""

    def recover(self) -> None:
        """After a boot no runner is left."""
        self._interrupted()
        self._proceed()

    def desire(self, wanted: Challenger | None) -> None:
        durable = self.durable
        if wanted is None:
            self._forget()
        elif durable is None or not self._is_of(wanted.offer.manifest_digest):
            self._forget()
            self.durable = Challenge(challenger=wanted)
            self._note("challenger_accepted", str(wanted.offer.ref))
            self._proceed()
        elif durable.challenger != wanted:
            if durable.state is not ChallengeState.WANTED:
                offer = acquisition.hinted_anew(durable.challenger.offer, wanted.offer)
                wanted = wanted.model_copy(update={"offer": offer})
            self._set(challenger=wanted)

    def handle(self, event: ManifestFetched | ArtifactFetched | FetchFailed, now: float) -> None:
        durable = self.durable
        if durable is None or not self._is_of(event.digest) or not self._awaits(event):
            return
        outcome = acquisition.outcome(
            event,
            durable.challenger.offer,
            durable.corrupt_fetches,
            self._settings,
        )
        if isinstance(outcome, Wait):
            self._set(corrupt_fetches=outcome.corrupt_fetches)
            self._waiting.wait(outcome.why, now, outcome.for_room)
        elif isinstance(outcome, Refuse):
            self._refuse(outcome.cause, outcome.detail)
        elif isinstance(outcome, Admitted):
            self._set(memory_max_bytes=outcome.memory_max_bytes, release=outcome.release)
            self._got(ChallengeSignal.ADMITTED)
        else:
            self._got(ChallengeSignal.FETCHED)

    def tick(self, now: float) -> None:
        if self._waiting.is_over(now):
            self._waiting.until = None
            self._proceed()

    def said(
        self,
        event: RunnerSelfTested | RunnerServing | RunnerProgressed,
        runner: Runner,
        now: float,
    ) -> None:
        if isinstance(event, RunnerSelfTested):
            self._runners.ready(runner, now)
            if not event.passed:
                self._refuse("self-test failed", event.detail)
        elif isinstance(event, RunnerServing):
            self._runners.serving(runner, now)
            if self.durable is not None and self.durable.state is ChallengeState.STAGED:
                self._move(ChallengeSignal.SHADOWING)
        else:
            self._runners.progressed(runner, event.progress, now)
            self._judge(runner, now)

    def lost(self, detail: str, hung: bool, now: float) -> None:
        self._interrupted()
        durable = self.durable
        if durable is None or durable.state is ChallengeState.REFUSED:
            return
        self._note("challenger_lost", detail)
        if durable.attempts >= self._settings.attempts_max:
            cause = "runner hung" if hung else "runner crashed"
            self._refuse(cause, f"{detail}, {durable.attempts} times")
        else:
            self._waiting.wait(f"retry after a lost runner: {detail}", now)

    def settle(self, slot: SlotSnapshot, now: float) -> list[Effect]:
        """Start, stop and feed its runner until what runs is what is wanted, and hand over all
        effects since the last call; a fetch goes after its journal. Changes `durable`."""
        if self.durable is None and self._is_quiet and not self._notes:
            return []
        had_runner = self._runners.get(Role.CHALLENGER) is not None
        ran = self._runners.settle_challenger(self._wanted(slot), now)
        has_runner = self._runners.get(Role.CHALLENGER) is not None
        if has_runner and not had_runner:
            self._is_counted = False
        elif not has_runner:
            self._interrupted()
        self._is_quiet = not has_runner
        effects, self._notes = self._notes, []
        if self._fetch is not None and self.durable == self.journalled:
            effects.append(self._with_highest(self._fetch, slot))
            self._fetch = None
        return effects + ran

    def next_deadline(self) -> float | None:
        return self._waiting.until

    def waits_for(self, slot: SlotSnapshot) -> str:
        """Why it does not run, in words; empty where it does, or is being fetched."""
        durable = self.durable
        if durable is None or durable.state is ChallengeState.REFUSED:
            return ""
        if self._waiting.why or durable.state is not ChallengeState.STAGED:
            return self._waiting.why
        if slot.champion is not None and self._is_of(slot.champion.manifest_digest):
            return "it is the champion already"
        if slot.state in TRYING:
            return "a new version is being tried here"
        return "" if self._runners.champion_serves else "the champion does not serve"

    def _is_of(self, digest: str) -> bool:
        durable = self.durable
        return durable is not None and durable.challenger.offer.manifest_digest == digest

    def _wanted(self, slot: SlotSnapshot) -> WantedChallenger | None:
        """What is to run now: nothing beside a trial, which measures latency and memory."""
        champion = slot.champion
        is_free = slot.state not in TRYING and self._runners.champion_serves
        if champion is None or not is_free or self._is_of(champion.manifest_digest):
            return None
        is_staged = self.durable is not None and self.durable.state is ChallengeState.STAGED
        is_counted = self._is_counted or self._runners.has_any(Role.CHALLENGER)
        if is_staged and not is_counted and self._waiting.until is None:
            self._count_try()
        durable = self.durable
        if durable is None or durable.state not in RUNS:
            return None
        return WantedChallenger(
            offer=durable.challenger.offer,
            budget=durable.challenger.budget,
            memory_max_bytes=durable.memory_max_bytes,
            may_start=self._is_counted and durable == self.journalled,
        )

    @staticmethod
    def _with_highest(fetch: FetchManifest | FetchArtifact, slot: SlotSnapshot) -> Effect:
        if isinstance(fetch, FetchArtifact):
            return fetch
        return replace(fetch, highest=trust.highest_of(slot.releases, fetch.offer.name))

    def _interrupted(self) -> None:
        if self.durable is not None and self.durable.state is ChallengeState.IN_SHADOW:
            self._move(ChallengeSignal.INTERRUPTED)

    def _judge(self, runner: Runner, now: float) -> None:
        """Of its answers nothing: they are what it is there to show."""
        too_large = probation.above(runner.memory_max_bytes, runner.progress)
        if too_large is not None:
            self._refuse(too_large.cause, too_large.detail)
            return
        since, durable = runner.serving_since, self.durable
        is_stable = since is not None and now - since >= self._settings.stable_after_s
        if is_stable and durable is not None and durable.attempts:
            self._set(attempts=0)

    def _proceed(self) -> None:
        durable = self.durable
        if durable is None:
            return
        if durable.state is ChallengeState.WANTED:
            self._fetch = FetchManifest(self._slot, durable.challenger.offer)
        elif durable.state is ChallengeState.DOWNLOADING:
            self._fetch = FetchArtifact(self._slot, durable.challenger.offer)

    def _awaits(self, event: ManifestFetched | ArtifactFetched | FetchFailed) -> bool:
        state = self.durable.state if self.durable is not None else None
        if isinstance(event, ManifestFetched):
            return state is ChallengeState.WANTED
        failed = isinstance(event, FetchFailed) and state is ChallengeState.WANTED
        return failed or state is ChallengeState.DOWNLOADING

    def _got(self, signal: ChallengeSignal) -> None:
        self._waiting.clear()
        self._move(signal)
        self._proceed()

    def _count_try(self) -> None:
        durable = self.durable
        assert durable is not None  # it is staged
        if durable.attempts >= self._settings.attempts_max:
            self._refuse("attempts exhausted", f"{durable.attempts} tries were interrupted")
            return
        if self._settings.signed_only and not durable.release:
            self._refuse(acquisition.NOT_VERIFIED, "it was fetched while it did not have to be")
            return
        self._waiting.why = ""
        self._set(attempts=durable.attempts + 1)
        self._is_counted = True

    def _refuse(self, cause: str, detail: str) -> None:
        assert self.durable is not None  # only what is wanted can be refused
        self._note("challenger_refused", f"{cause}: {detail}")
        refused = Refusal(
            version=self.durable.challenger.offer.ref,
            cause=cause[:TEXT_MAX_CHARS],
            detail=detail[:TEXT_MAX_CHARS],
        )
        self._rest()
        self._set(refused=refused)
        self._move(ChallengeSignal.FAILED)

    def _forget(self) -> None:
        if self.durable is not None:
            self._note("challenger_withdrawn", "the controller wants no such challenger any more")
        self.durable = None
        self._rest()

    def _rest(self) -> None:
        self._fetch, self._is_counted = None, False
        self._waiting.clear()

    def _move(self, signal: ChallengeSignal) -> None:
        assert self.durable is not None  # without one there is no signal
        self._set(state=challenge_after(self.durable.state, signal))

    def _set(self, **update: object) -> None:
        assert self.durable is not None  # nor anything to be changed
        self.durable = self.durable.model_copy(update=update)

    def _note(self, name: str, detail: str) -> None:
        version = self.durable.challenger.offer.ref if self.durable is not None else None
        self._notes.append(AppendEvent(name, self._slot, version, detail[:TEXT_MAX_CHARS]))
