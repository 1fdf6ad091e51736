"""One slot: the durable state of its versions, moved along the transition table by events.

Invariants: a candidate reaches the source only by ADMITTED → … → PASSED; attempts are counted
before the try; success is a commit, after probation; every failure names a cause, bars the digest
and leaves the champion to run. What can mend itself (link, disk, memory) waits, for ever. No fetch
and no runner of a candidate goes before its journal; the champion's never waits for it.
"""

from collections.abc import Callable
from typing import Final

from edgeloop_agent.core import acquisition, probation, trust
from edgeloop_agent.core.acquisition import Admitted, Refuse, Wait
from edgeloop_agent.core.challenge import ChallengerTrack
from edgeloop_agent.core.effects import (
    AppendEvent,
    CaptureExamples,
    Effect,
    FetchArtifact,
    FetchManifest,
)
from edgeloop_agent.core.events import (
    ArtifactFetched,
    FetchFailed,
    ManifestFetched,
    RunnerExited,
    RunnerLoading,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
    SlotEvent,
)
from edgeloop_agent.core.lifecycle import Signal, after
from edgeloop_agent.core.repair import Repair
from edgeloop_agent.core.reporting import Report
from edgeloop_agent.core.runners import Role, Runner, RunnerSet
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import Candidate, SlotSnapshot
from edgeloop_agent.core.waiting import Waiting
from edgeloop_agent.core.wanted import SERVES, TRYING, Wants
from edgeloop_protocol.lifecycle import RESTING, SlotState
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Refusal, SlotDesired, SlotReported

COMING: Final = RESTING | {SlotState.VERIFIED, SlotState.DOWNLOADING}
"""Where a candidate is being fetched."""


class Slot:
    """Feed it and `settle` it. `durable` is what shall survive, `journalled` what will."""

    def __init__(
        self, durable: SlotSnapshot, settings: CoreSettings, jitter: Callable[[], float]
    ) -> None:
        self.durable = self._journalled = durable
        self.runners = RunnerSet(durable.slot, settings, jitter)
        self.challenger = ChallengerTrack(durable.challenge, self.runners, settings, jitter)
        self._settings = settings
        self._effects: list[Effect] = []
        self._fetch: FetchManifest | FetchArtifact | None = None
        self._waiting = Waiting(jitter)
        self._repair = Repair(durable.slot, jitter)
        self._probation_since = 0.0
        self._report, self._wants = Report(), Wants()

    @property
    def journalled(self) -> SlotSnapshot:
        return self._journalled

    @journalled.setter
    def journalled(self, snapshot: SlotSnapshot) -> None:
        self._journalled = snapshot
        self.challenger.journalled = snapshot.challenge

    def recover(self) -> None:
        """After a boot: no runner is left, so a try that was underway begins anew, counted."""
        self.challenger.recover()
        if self.durable.candidate is not None:
            if self.durable.state in TRYING:
                self._move(Signal.INTERRUPTED)
            elif self.durable.state is SlotState.STAGED:
                candidate = self.durable.candidate
                self._change_candidate(candidate, boots_held=candidate.boots_held + 1)
            self._proceed()

    def desire(self, desired: SlotDesired) -> None:
        """What the controller wants here now; nothing new is no reason to stop the champion."""
        self.challenger.desire(desired.challenger)
        offer, candidate, champion = desired.offer, self.durable.candidate, self.durable.champion
        if offer is None:
            if candidate is not None:
                self._withdraw("withdrawn", "the controller wants nothing new here any more")
            self._set(barred_digest=None)  # taken back: to offer it again is a new decision
            return
        digest = offer.manifest_digest
        if digest == self.durable.barred_digest:
            return
        self._set(barred_digest=None)
        if candidate is not None and digest == candidate.offer.manifest_digest:
            if self.durable.state not in RESTING:
                offer = acquisition.hinted_anew(candidate.offer, offer)
            self._change_candidate(candidate, offer=offer, probation=desired.probation)
            return
        if candidate is not None:
            cause = "withdrawn" if champion and digest == champion.manifest_digest else "superseded"
            self._withdraw(cause, f"the controller wants {offer.ref} here now")
        if champion is not None and digest == champion.manifest_digest:
            return
        self._set(candidate=Candidate(offer=offer, probation=desired.probation), refused=None)
        self._note("offer_accepted", str(offer.ref))
        self._proceed()

    def handle(self, event: SlotEvent, now: float) -> None:
        """An event of a fetch that is no longer wanted, or of a runner that is gone, is stale."""
        if isinstance(event, ManifestFetched | ArtifactFetched | FetchFailed):
            candidate = self.durable.candidate
            if candidate is not None and candidate.offer.manifest_digest == event.digest:
                self._fetched(event, candidate, now)
            elif self._repair.is_of(event.digest):
                self._effects += self._repair.handle(event, now)
            self.challenger.handle(event, now)
        elif isinstance(event, RunnerExited):
            lost = self.runners.exited(event.runner, now)
            if lost is not None:
                self._lost(lost, event.detail, now, hung=False)
        else:
            runner = self.runners.live(event.runner)
            if runner is not None:
                self._said(event, runner, now)

    def tick(self, now: float) -> None:
        effects, lost = self.runners.overdue(now)
        self._effects += effects
        for runner, detail, was_up in lost:
            self._lost(runner, detail, now, hung=was_up)
        self._effects += self._repair.tick(now)
        self.challenger.tick(now)
        if self._waiting.is_over(now):
            self._proceed()
        if self.durable.state is SlotState.PROBATION:
            self._judge(now)

    def restart_runner(self, now: float) -> tuple[bool, str]:
        """Whether it will be, and what follows; a candidate's trial is never disturbed."""
        champion = self.durable.champion
        if self.durable.state in TRYING:
            return False, "a new version is being tried here: its probation decides"
        if champion is None:
            return False, "nothing runs here yet"
        self._effects += self.runners.restart(now)
        self._note("runner_restart_asked", str(champion.ref))
        return True, f"the runner of {champion.ref} begins anew"

    def capture(self, examples: int) -> tuple[bool, str]:
        """Whether they will come, and of whom: whoever has the source, on trial or not."""
        runner = self.runners.answering()
        if runner is None:
            return False, "no runner answers here now: ask again when one does"
        self._effects.append(CaptureExamples(self.durable.slot, runner.number, examples))
        return True, f"{examples} examples will come: the next that {runner.version} answers"

    def settle(self, now: float) -> list[Effect]:
        """Make the runners follow the state, and hand over all effects since the last call."""
        wants = self._wants.of(self.durable, self.journalled)
        effects = self._effects + self.runners.settle(wants, now)
        self._effects = []
        effects += self.challenger.settle(self.durable, now)
        if self.challenger.durable is not self.durable.challenge:
            self._set(challenge=self.challenger.durable)
        if self._fetch is not None and self.durable == self.journalled:
            effects.append(self._fetch)
            self._fetch = None
        return effects

    def next_deadline(self) -> float | None:
        times = self.runners.deadlines()
        waits = (self._waiting.until, self._repair.until, self.challenger.next_deadline())
        times += [time for time in waits if time is not None]
        candidate = self.durable.candidate
        if candidate is not None and self.durable.state is SlotState.PROBATION:
            times.append(self._probation_since + candidate.probation.max_s)
        return min(times, default=None)

    def reported(self, journal_problem: str) -> SlotReported:
        waiting = self._waiting.why or self._repair.why
        if journal_problem and self.durable != self.journalled:
            waiting = waiting or journal_problem
        challenger_waits = self.challenger.waits_for(self.durable)
        return self._report.of(self.durable, waiting, challenger_waits, self.runners)

    def _proceed(self) -> None:
        """Do what the candidate's state asks for next."""
        self._waiting.until = None
        candidate, state = self.durable.candidate, self.durable.state
        if candidate is None:
            return
        if state in RESTING:
            highest = trust.highest_of(self.durable.releases, candidate.offer.name)
            self._fetch = FetchManifest(self.durable.slot, candidate.offer, highest)
            return
        if state is SlotState.VERIFIED:
            self._move(Signal.FETCHING)
            state = self.durable.state
        if state is SlotState.DOWNLOADING:
            self._fetch = FetchArtifact(self.durable.slot, candidate.offer)

    @property
    def is_ready(self) -> bool:
        """Its version is staged, and nothing of its own keeps it from being tried."""
        return self.durable.state is SlotState.STAGED and self._waiting.until is None

    @property
    def is_coming(self) -> bool:
        """Its version is being fetched, and nothing but the link is waited for."""
        durable = self.durable
        coming = durable.candidate is not None and durable.state in COMING
        return coming and not self._waiting.for_room

    def try_or_wait(self, why: str) -> None:
        """Of a slot that is ready; `why`: whom it waits for, empty: it is tried."""
        if why:
            self._waiting.why = why
        elif self.durable.candidate is not None:
            self._try(self.durable.candidate)

    def _fetched(
        self,
        event: ManifestFetched | ArtifactFetched | FetchFailed,
        candidate: Candidate,
        now: float,
    ) -> None:
        if not self._awaits(event):
            return
        outcome = acquisition.outcome(
            event,
            candidate.offer,
            candidate.corrupt_fetches,
            self._settings,
        )
        if isinstance(outcome, Wait):
            self._change_candidate(candidate, corrupt_fetches=outcome.corrupt_fetches)
            self._waiting.wait(outcome.why, now, outcome.for_room)
        elif isinstance(outcome, Refuse):
            self._fail(outcome.cause, outcome.detail)
        elif isinstance(outcome, Admitted):
            self._change_candidate(
                candidate, memory_max_bytes=outcome.memory_max_bytes, release=outcome.release
            )
            self._got(Signal.ADMITTED)
        else:
            self._got(Signal.FETCHED)

    def _awaits(self, event: ManifestFetched | ArtifactFetched | FetchFailed) -> bool:
        if isinstance(event, ManifestFetched):
            return self.durable.state in RESTING
        downloads = self.durable.state is SlotState.DOWNLOADING
        return downloads or (isinstance(event, FetchFailed) and self.durable.state in RESTING)

    def _got(self, signal: Signal) -> None:
        self._waiting.clear()
        self._move(signal)
        self._proceed()

    def _try(self, candidate: Candidate) -> None:
        if candidate.attempts >= self._settings.attempts_max:
            self._fail("attempts exhausted", f"{candidate.attempts} tries were interrupted")
            return
        if self._settings.signed_only and not candidate.release:
            self._fail(acquisition.NOT_VERIFIED, "it was fetched while it did not have to be")
            return
        self._change_candidate(candidate, attempts=candidate.attempts + 1)
        self._waiting.why = ""
        self._move(Signal.TRYING)

    def _said(
        self,
        event: RunnerLoading | RunnerSelfTested | RunnerServing | RunnerProgressed,
        runner: Runner,
        now: float,
    ) -> None:
        is_candidate = runner.role is Role.CANDIDATE
        if isinstance(event, RunnerLoading):
            self.runners.loading(runner, now)
        elif runner.role is Role.CHALLENGER:
            self.challenger.said(event, runner, now)
        elif isinstance(event, RunnerSelfTested):
            self.runners.ready(runner, now)
            self._self_tested(event, is_candidate)
        elif isinstance(event, RunnerServing):
            self.runners.serving(runner, now)
            if is_candidate and self.durable.state is SlotState.ACTIVATING:
                self._probation_since = now
                self._move(Signal.SERVING)
        else:
            self.runners.progressed(runner, event.progress, now)
            if not is_candidate:
                self._mind_memory(runner, now)
            elif self.durable.state is SlotState.PROBATION:
                self._judge(now)

    def _self_tested(self, event: RunnerSelfTested, is_candidate: bool) -> None:
        if not event.passed and not is_candidate:
            self._note("champion_self_test_failed", event.detail)
            if self.durable.champion is not None:
                self._effects += self._repair.begin(self.durable.champion)
        elif not event.passed:
            self._fail("self-test failed", event.detail)
        elif is_candidate and self.durable.state is SlotState.SELF_TEST:
            self._move(Signal.PASSED)

    def _mind_memory(self, champion: Runner, now: float) -> None:
        """A champion that leaks is started anew before the device runs out of memory."""
        verdict = probation.above(champion.memory_max_bytes, champion.progress)
        if verdict is not None:
            self._effects += self.runners.end_as_lost(champion, now)
            self._note("runner_restarted", f"{champion.version}: memory: {verdict.detail}")

    def _judge(self, now: float) -> None:
        candidate, runner = self.durable.candidate, self.runners.get(Role.CANDIDATE)
        if candidate is None or runner is None:
            return
        progress = runner.progress
        old_us = progress.shadow_latency_p95_us or self.runners.champion_latency_p95_us
        elapsed_s = now - self._probation_since
        verdict = probation.judge(
            candidate.probation, progress, elapsed_s, old_us, runner.memory_max_bytes
        )
        if isinstance(verdict, probation.Failed):
            self._fail(verdict.cause, verdict.detail)
        elif isinstance(verdict, probation.Proven):
            self._set(
                champion=candidate.offer,
                champion_memory_max_bytes=candidate.memory_max_bytes,
                previous=self.durable.champion,
                releases=trust.with_commit(
                    self.durable.releases, candidate.offer, candidate.release
                ),
            )
            self._repair.end()
            self._note("committed", f"after {elapsed_s:.1f} s and {progress.examples} examples")
            self._move(Signal.PROVEN)
            self._set(candidate=None)
            self.runners.promote(now)

    def _lost(self, runner: Runner, detail: str, now: float, hung: bool) -> None:
        """A self-test that hangs once would hang again; one that died may have been killed, and one
        that did not even begin had no time."""
        candidate = self.durable.candidate
        if runner.role is Role.CHAMPION:
            self._note("runner_lost", f"{runner.version}: {detail}")
        elif runner.role is Role.CHALLENGER:
            self.challenger.lost(detail, hung, now)
        elif candidate is None:
            return
        elif self.durable.state is SlotState.SELF_TEST:
            self._note("runner_lost", f"{runner.version} in self-test: {detail}")
            if hung:
                self._fail("self-test hung", detail)
            elif candidate.attempts >= self._settings.attempts_max:
                self._fail("self-test crashed", f"{detail}, {candidate.attempts} times")
            else:
                self._move(Signal.INTERRUPTED)
                self._waiting.wait(f"retry after a lost self-test: {detail}", now)
        elif self.durable.state in SERVES:
            self._fail("runner hung" if hung else "runner crashed", detail)

    def _fail(self, cause: str, detail: str) -> None:
        self._roll_back(Signal.FAILED, cause, detail)

    def _withdraw(self, cause: str, detail: str) -> None:
        self._roll_back(Signal.WITHDRAWN, cause, detail)

    def _roll_back(self, signal: Signal, cause: str, detail: str) -> None:
        candidate = self.durable.candidate
        assert candidate is not None  # only what is underway can be rolled back
        self._note("rolled_back", f"{cause}: {detail}")
        self._move(signal)
        version = candidate.offer.ref
        refusal = Refusal(version=version, cause=_text(cause), detail=_text(detail))
        barred = version.manifest_digest if signal is Signal.FAILED else None
        self._set(candidate=None, refused=refusal, barred_digest=barred)
        self._fetch = None
        self._waiting.clear()

    def _move(self, signal: Signal) -> None:
        self._set(state=after(self.durable.state, signal))

    def _set(self, **update: object) -> None:
        self.durable = self.durable.model_copy(update=update)

    def _change_candidate(self, candidate: Candidate, **update: object) -> None:
        self._set(candidate=candidate.model_copy(update=update))

    def _note(self, name: str, detail: str) -> None:
        candidate = self.durable.candidate
        offer = candidate.offer if candidate else self.durable.champion
        version = offer.ref if offer else None
        self._effects.append(AppendEvent(name, self.durable.slot, version, _text(detail)))


def _text(words: str) -> str:
    return words[:TEXT_MAX_CHARS]
