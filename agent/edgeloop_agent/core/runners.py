"""The runner processes of one slot, as the core sees them: who runs, who has the source, who hangs.

Invariants: at most one runner has the source, and the next gets it only after the former is gone;
at most one runner a role is wanted; a challenger lives only while the champion that feeds it
serves; a champion that dies is started again after a backoff with jitter; a runner that misses its
deadline is killed and counts as lost at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from edgeloop_agent.core.effects import (
    DropShadow,
    Effect,
    Go,
    Mirror,
    StartRunner,
    StopRunner,
)
from edgeloop_agent.core.events import Progress
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.messages import Offer, ShadowBudget, VersionRef

STOP_GRACE_S: Final = 5.0
"""How long a runner may take to answer what it has read and to end, before it is killed."""


class Role(Enum):
    CHAMPION = auto()
    CANDIDATE = auto()
    CHALLENGER = auto()


class Phase(Enum):
    STARTING = auto()
    LOADING = auto()
    READY = auto()
    SERVING = auto()
    STOPPING = auto()


@dataclass(slots=True)
class Runner:
    number: int
    role: Role
    version: VersionRef
    load_timeout_s: float
    deadline: float
    phase: Phase = Phase.STARTING
    has_source: bool = False
    serving_since: float | None = None
    shadow: VersionRef | None = None
    shadow_until: float | None = None
    memory_max_bytes: int = 0
    budget: ShadowBudget | None = None
    fed_by: int | None = None
    """The runner that mirrors its inputs to this one, a challenger's."""
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a slot wants to run. With `candidate_serves` the champion makes way."""

    champion: Offer | None
    candidate: Offer | None
    shadow: Offer | None
    candidate_serves: bool
    champion_memory_bytes: int = 0
    candidate_memory_bytes: int = 0
    """As their manifests require it; 0: they do not say."""


@dataclass(frozen=True, slots=True)
class WantedChallenger:
    """With `may_start` a try of it was counted, and the journal holds that."""

    offer: Offer
    budget: ShadowBudget
    memory_max_bytes: int
    may_start: bool


@dataclass(slots=True)
class RunnerSet:
    slot: str
    settings: CoreSettings
    jitter: Callable[[], float]
    runners: dict[int, Runner] = field(default_factory=dict)
    restarts: int = 0
    last_number: int = 0
    champion_latency_p95_us: float | None = None
    _failures: int = 0
    _restart_at: float | None = None

    def get(self, role: Role) -> Runner | None:
        """The runner of this role that is not on its way out."""
        for runner in self.runners.values():
            if runner.role is role and runner.phase is not Phase.STOPPING:
                return runner
        return None

    def answering(self) -> Runner | None:
        """Whoever has the source, and said that it is open."""
        runners = self.runners.values()
        return next((r for r in runners if r.has_source and r.phase is Phase.SERVING), None)

    def live(self, number: int) -> Runner | None:
        """The runner of this number, unless it is stopping or gone: then its word is stale."""
        runner = self.runners.get(number)
        return None if runner is None or runner.phase is Phase.STOPPING else runner

    @property
    def alive(self) -> bool:
        return any(
            runner.phase is Phase.SERVING and runner.role is not Role.CHALLENGER
            for runner in self.runners.values()
        )

    @property
    def champion_serves(self) -> bool:
        runner = self.get(Role.CHAMPION)
        return runner is not None and runner.phase is Phase.SERVING

    @property
    def source_problem(self) -> str:
        """Why the runner that has the source cannot open it; empty when it can."""
        for runner in self.runners.values():
            if runner.has_source and runner.progress.source_problem:
                return runner.progress.source_problem
        return ""

    def settle(self, wanted: Wanted, now: float) -> list[Effect]:
        """Start, stop and switch until what runs is what is wanted; idempotent."""
        effects: list[Effect] = []
        if wanted.candidate_serves:
            self._restart_at = None  # the champion rests; after a rollback it starts at once
        for role, offer in (
            (Role.CHAMPION, None if wanted.candidate_serves else wanted.champion),
            (Role.CANDIDATE, wanted.candidate),
        ):
            runner = self.get(role)
            if runner is not None and not _is(runner.version, offer):
                effects += self._stop(runner, now, kill=False)
                runner = None
            if runner is None and offer is not None and self._may_start(role, now):
                effects.append(self._start(role, offer, wanted, now))
        serving = self.get(Role.CANDIDATE if wanted.candidate_serves else Role.CHAMPION)
        if serving is not None and serving.phase is Phase.READY and self._source_is_free():
            serving.has_source = True
            serving.deadline = now + self.settings.heartbeat_timeout_s
            effects.append(Go(self.slot, serving.number))
        return effects

    def settle_challenger(self, wanted: WantedChallenger | None, now: float) -> list[Effect]:
        """As `settle`, which goes before. None: there shall be none, as when no champion serves."""
        source, runner = self.get(Role.CHAMPION), self.get(Role.CHALLENGER)
        if runner is not None:
            if wanted is None or source is None or not _fits(runner, wanted):
                return self._stop(runner, now, kill=False)
            if runner.phase is not Phase.READY or runner.fed_by is not None:
                return []
            runner.fed_by = source.number
            runner.deadline = now + self.settings.heartbeat_timeout_s
            return [Mirror(self.slot, source.number, runner.number)]
        if wanted is None or not wanted.may_start or self.has_any(Role.CHALLENGER):
            return []
        return [self._start_challenger(wanted, now)]

    def restart(self, now: float) -> list[Effect]:
        """`settle` starts the champion again: at once, also where it waited to be."""
        self._restart_at = None
        runner = self.get(Role.CHAMPION)
        return [] if runner is None else self._stop(runner, now, kill=False)

    def promote(self, now: float) -> None:
        """The candidate was committed: its runner goes on as the champion's."""
        runner = self.get(Role.CANDIDATE)
        if runner is not None:
            runner.role = Role.CHAMPION
            self.champion_latency_p95_us = runner.progress.latency_p95_us
            if runner.shadow is not None:
                runner.shadow_until = now + self.settings.shadow_after_commit_s
        self._failures, self._restart_at = 0, None

    def loading(self, runner: Runner, now: float) -> None:
        if runner.phase is Phase.STARTING:
            runner.phase = Phase.LOADING
            runner.deadline = now + runner.load_timeout_s

    def ready(self, runner: Runner, now: float) -> None:
        if runner.phase in (Phase.STARTING, Phase.LOADING):
            runner.phase = Phase.READY
            runner.deadline = now + self.settings.heartbeat_timeout_s

    def serving(self, runner: Runner, now: float) -> None:
        runner.phase = Phase.SERVING
        runner.serving_since = now
        runner.deadline = now + self.settings.heartbeat_timeout_s

    def progressed(self, runner: Runner, progress: Progress, now: float) -> None:
        runner.progress = progress
        runner.deadline = now + self.settings.heartbeat_timeout_s
        if runner.role is Role.CHAMPION and progress.latency_p95_us is not None:
            self.champion_latency_p95_us = progress.latency_p95_us

    def exited(self, number: int, now: float) -> Runner | None:
        """Forget a runner; returns it if it was lost, None if it was to stop anyway."""
        runner = self.runners.pop(number, None)
        if runner is None or runner.phase is Phase.STOPPING:
            return None
        self._count_loss(runner, now)
        return runner

    def end_as_lost(self, runner: Runner, now: float) -> list[Effect]:
        """End one that shall not go on as it is, and count it as lost."""
        self._count_loss(runner, now)
        return self._stop(runner, now, kill=False)

    def overdue(self, now: float) -> tuple[list[Effect], list[tuple[Runner, str, bool]]]:
        """Kill what missed its deadline, end shadows that are due; returns who was lost, why, and
        whether it was up by then: what has not even started has not been hung by its version."""
        effects: list[Effect] = []
        lost: list[tuple[Runner, str, bool]] = []
        for runner in list(self.runners.values()):
            if runner.shadow_until is not None and now >= runner.shadow_until:
                runner.shadow_until = runner.shadow = None
                effects.append(DropShadow(self.slot, runner.number))
            if now < runner.deadline:
                continue
            if runner.phase is not Phase.STOPPING:
                lost.append((runner, self._why(runner), runner.phase is not Phase.STARTING))
                self._count_loss(runner, now)
            effects += self._stop(runner, now, kill=True)
        return effects, lost

    def deadlines(self) -> list[float]:
        times: list[float] = []
        for runner in self.runners.values():
            times.append(runner.deadline)
            if runner.shadow_until is not None:
                times.append(runner.shadow_until)
        if self._restart_at is not None and self.get(Role.CHAMPION) is None:
            times.append(self._restart_at)
        return times

    def _may_start(self, role: Role, now: float) -> bool:
        return role is Role.CANDIDATE or self._restart_at is None or now >= self._restart_at

    def _start(self, role: Role, offer: Offer, wanted: Wanted, now: float) -> Effect:
        self.last_number += 1
        if role is Role.CHAMPION:
            in_shadow, memory_bytes, self._restart_at = None, wanted.champion_memory_bytes, None
        else:
            in_shadow, memory_bytes = wanted.shadow, wanted.candidate_memory_bytes
        shadow, load_bytes = None, offer.artifact_size_bytes
        if in_shadow is not None:
            shadow, load_bytes = in_shadow.ref, load_bytes + in_shadow.artifact_size_bytes
        memory_max_bytes = self.settings.memory_cap_bytes(memory_bytes)
        self.runners[self.last_number] = Runner(
            self.last_number,
            role,
            offer.ref,
            self.settings.load_timeout_s(load_bytes),
            deadline=now + self.settings.start_timeout_s,
            shadow=shadow,
            memory_max_bytes=memory_max_bytes,
        )
        return StartRunner(self.slot, self.last_number, offer.ref, shadow, memory_max_bytes)

    def _start_challenger(self, wanted: WantedChallenger, now: float) -> Effect:
        self.last_number += 1
        caps = (
            wanted.budget.memory_bytes,
            wanted.memory_max_bytes,
            self.settings.runner_memory_max_bytes,
        )
        memory_max_bytes = min((cap for cap in caps if cap), default=0)
        self.runners[self.last_number] = Runner(
            self.last_number,
            Role.CHALLENGER,
            wanted.offer.ref,
            self.settings.load_timeout_s(wanted.offer.artifact_size_bytes),
            deadline=now + self.settings.start_timeout_s,
            memory_max_bytes=memory_max_bytes,
            budget=wanted.budget,
        )
        return StartRunner(
            self.slot, self.last_number, wanted.offer.ref, None, memory_max_bytes, wanted.budget
        )

    def has_any(self, role: Role) -> bool:
        """One on its way out included: two at once would need twice the memory."""
        return any(runner.role is role for runner in self.runners.values())

    def _stop(self, runner: Runner, now: float, kill: bool) -> list[Effect]:
        runner.phase = Phase.STOPPING
        runner.deadline = now + STOP_GRACE_S
        return [StopRunner(self.slot, runner.number, kill)]

    def _source_is_free(self) -> bool:
        return not any(runner.has_source for runner in self.runners.values())

    def _count_loss(self, runner: Runner, now: float) -> None:
        if runner.role is not Role.CHAMPION:
            return
        since = runner.serving_since
        stable = since is not None and now - since >= self.settings.stable_after_s
        self._failures = 1 if stable else self._failures + 1
        self.restarts += 1
        wait_s = backoff_s(
            self._failures, self.jitter(), ceiling_s=self.settings.restart_backoff_s_max
        )
        self._restart_at = now + wait_s

    def _why(self, runner: Runner) -> str:
        if runner.phase is Phase.STARTING:
            return f"not up after {self.settings.start_timeout_s:g} s"
        if runner.phase is Phase.LOADING:
            return f"hung: no self-test result after {runner.load_timeout_s:.0f} s"
        return f"hung: no heartbeat for {self.settings.heartbeat_timeout_s:g} s"


def _fits(runner: Runner, wanted: WantedChallenger) -> bool:
    return runner.budget == wanted.budget and _is(runner.version, wanted.offer)


def _is(version: VersionRef, wanted: Offer | None) -> bool:
    return wanted is not None and version.manifest_digest == wanted.manifest_digest
