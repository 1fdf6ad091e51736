"""The runners of a fleet: each device has its own, behind the RunnerHost port; one worker infers.

Invariants: a device's runner says what a real one says, in the same order, and exactly one
RunnerExited follows each start, after its last word; a runner is started only on files whose
digests are right on that device's own disk; every example that a runner counts was inferred. What
is not real: no process dies with a model unless a Misbehaviour says so; heartbeats thin out to one
every `beat_s`; latencies are those of the shared session; memory is not measured (0); a challenger
has a share of the worker, whatever its budget.
"""

import asyncio
import itertools
import logging
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal, get_args

import numpy as np

from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    Progress,
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.ports import Disk, Post, RunnerSaid
from edgeloop_agent.runner_protocol import HEARTBEAT_S
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import (
    Comparison,
    Sample,
    ShadowSummary,
    VersionRef,
    WindowSummary,
)
from edgeloop_simulators.live.inference import (
    Answers,
    Ints,
    Layout,
    Loaded,
    Question,
    Sampled,
    SharedInference,
    WorkerDiedError,
)

logger = logging.getLogger(__name__)

STEP_S: Final = 0.25
"""Runners that are due within one step are asked together."""
SLOW_LATENCY_US: Final = 1e6
NO_LAYOUT: Final = Layout(0, 0, ())

Kind = Literal["crash", "hang", "nan", "slow"]
MISBEHAVIOURS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What a version does on a `share` of the devices, always the same ones, at its first answers.

    `version` is `name@version`, or `*` for every one.
    """

    kind: Kind
    version: str
    share: float = 1.0

    def strikes(self, device_id: str, version: VersionRef) -> bool:
        if self.version not in ("*", str(version)):
            return False
        drawn = zlib.crc32(f"{self.kind} {self.version} {device_id}".encode()) / 2**32
        return drawn < self.share


@dataclass(frozen=True, slots=True)
class RunnerTerms:
    examples_per_s: float = 1.0
    window_s: float = 60.0
    beat_s: float = 10.0
    sample_fraction: float = 0.0
    misbehaviours: tuple[Misbehaviour, ...] = ()


class _Phase(Enum):
    STARTING = auto()
    READY = auto()
    SERVING = auto()
    GONE = auto()


@dataclass(slots=True, eq=False)
class _Runner:
    host: "LiveRunnerHost"
    slot: str
    number: int
    version: VersionRef
    shadow: VersionRef | None
    challenges: bool = False
    """It is a challenger: `shadow` is the champion that it is compared with, once it is fed."""
    fed_by: "_Runner | None" = None
    phase: _Phase = _Phase.STARTING
    has_go: bool = False
    layout: Layout = NO_LAYOUT
    interval_s: float = HEARTBEAT_S
    due: int = 0
    """The step at which it beats; it may stand in the wheel at others, in vain."""
    started_at: float = 0.0
    window_ends: float = 0.0
    counts: Ints | None = None
    progress: Progress = field(default_factory=Progress)
    errors: int = 0
    nonfinite: int = 0
    compared: int = 0
    disagreed: int = 0
    misbehaves: Kind | None = None


class LiveRunnerHost:
    """One device's runners; `post` must not act at once but later, on the loop."""

    def __init__(self, runners: "SharedRunners", device_id: str, disk: Disk, post: Post) -> None:
        self._runners = runners
        self.device_id = device_id
        self.disk = disk
        self.post = post
        self._live: dict[tuple[str, int], _Runner] = {}

    def start(self, effect: StartRunner) -> None:
        challenges = effect.budget is not None
        runner = _Runner(
            self, effect.slot, effect.runner, effect.version, effect.shadow, challenges
        )
        self._live[effect.slot, effect.runner] = runner
        self._runners.start(runner)

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        source, reader = self._live.get((slot, runner)), self._live.get((slot, challenger))
        if source is not None and reader is not None:
            reader.fed_by, reader.shadow = source, source.version
            self._runners.go(reader)

    def go(self, slot: str, runner: int) -> None:
        if found := self._live.get((slot, runner)):
            self._runners.go(found)

    def drop_shadow(self, slot: str, runner: int) -> None:
        found = self._live.get((slot, runner))
        if found is not None and found.shadow is not None:
            self._runners.drop_shadow(found)

    def capture(self, slot: str, runner: int, examples: int) -> None:
        """Nobody asks for examples here."""

    def stop(self, slot: str, runner: int, kill: bool) -> None:
        if found := self._live.get((slot, runner)):
            self._runners.stop(found, kill)

    def stop_all(self, kill: bool) -> None:
        for runner in tuple(self._live.values()):
            self._runners.stop(runner, kill)

    def alive(self) -> int:
        return len(self._live)

    def gone(self, runner: _Runner) -> None:
        del self._live[runner.slot, runner.number]


class SharedRunners:
    """All runners of the process, on one loop; `run` is a task on it."""

    def __init__(self, inference: SharedInference, clock: Clock, terms: RunnerTerms) -> None:
        self._inference = inference
        self._clock = clock
        self._terms = terms
        self._wheel: dict[int, list[_Runner]] = {}
        self._step = 0
        self._starting: set[asyncio.Task[None]] = set()
        self.examples = 0
        """Inferred so far, by all."""

    def host(self, device_id: str, disk: Disk, post: Post) -> LiveRunnerHost:
        return LiveRunnerHost(self, device_id, disk, post)

    async def run(self) -> None:
        """Until cancelled. A step that comes late makes up for nothing: its runners were slow."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            await self._turn()
            at = max(at + STEP_S, loop.time())
            await asyncio.sleep(at - loop.time())

    async def close(self) -> None:
        for task in tuple(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)

    # ---- what the supervisor asks for -----------------------------------------------------------

    def start(self, runner: _Runner) -> None:
        known = self._inference.loaded(runner.version)
        if known is not None and self._shadow_is_loaded(runner):
            self._started(runner, known)
            return
        task = asyncio.get_running_loop().create_task(self._load(runner))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def go(self, runner: _Runner) -> None:
        runner.has_go = True
        if runner.phase is _Phase.READY:
            self._serve(runner)

    def drop_shadow(self, runner: _Runner) -> None:
        if runner.phase is _Phase.SERVING:
            self._close_window(runner)
        runner.shadow = None

    def stop(self, runner: _Runner, kill: bool) -> None:
        if runner.phase is _Phase.GONE or (runner.misbehaves == "hang" and not kill):
            return
        if kill:
            self._end(runner, "killed by SIGKILL")
            return
        if runner.phase is _Phase.SERVING:
            self._close_window(runner)
            runner.host.post(RunnerProgressed(runner.slot, runner.number, runner.progress))
        self._end(runner, "exit status 0")

    # ---- from start to end ----------------------------------------------------------------------

    async def _load(self, runner: _Runner) -> None:
        """The session of its version, and of its shadow, if no other device has loaded them."""
        try:
            loaded = await self._load_version(runner, runner.version)
            if runner.shadow is not None:
                shadow = await self._load_version(runner, runner.shadow)
                if shadow.load_problem:
                    runner.shadow = None
        except WorkerDiedError as error:
            self._worker_died(error)
            self._end(runner, f"killed by SIGABRT: {error}")
            return
        self._started(runner, loaded)

    async def _load_version(self, runner: _Runner, version: VersionRef) -> Loaded:
        disk, digest = runner.host.disk, version.manifest_digest
        try:
            manifest, model = disk.read(manifest_path(digest)), disk.read(model_path(digest))
        except OSError as error:
            return Loaded(load_problem=f"cannot read {version} from the store: {error}")
        return await self._inference.load(version, manifest, model)

    def _shadow_is_loaded(self, runner: _Runner) -> bool:
        return runner.shadow is None or self._inference.loaded(runner.shadow) is not None

    def _started(self, runner: _Runner, loaded: Loaded) -> None:
        if runner.phase is _Phase.GONE:
            return
        problem = loaded.load_problem or _damage(runner, loaded)
        detail = (problem or loaded.test_problem)[:TEXT_MAX_CHARS]
        runner.host.post(RunnerSelfTested(runner.slot, runner.number, not detail, detail))
        if problem:
            self._end(runner, f"exit status 1: {problem}")
            return
        runner.layout, runner.phase = loaded.layout, _Phase.READY
        runner.progress = Progress(memory_bytes=loaded.memory_bytes)
        for one in self._terms.misbehaviours:
            if one.strikes(runner.host.device_id, runner.version):
                runner.misbehaves = one.kind
        if runner.has_go:
            self._serve(runner)
        else:
            self._plan(runner)

    def _serve(self, runner: _Runner) -> None:
        runner.phase = _Phase.SERVING
        runner.host.post(RunnerServing(runner.slot, runner.number))
        runner.interval_s = HEARTBEAT_S
        self._new_window(runner)
        self._plan(runner)

    def _end(self, runner: _Runner, detail: str) -> None:
        if runner.phase is _Phase.GONE:
            return
        runner.phase = _Phase.GONE
        runner.host.gone(runner)
        runner.host.post(RunnerExited(runner.slot, runner.number, detail[:TEXT_MAX_CHARS]))

    def _worker_died(self, error: WorkerDiedError) -> None:
        logger.error("%s; every runner of this process ends", error)
        self._inference.restart()
        for runner in list(itertools.chain.from_iterable(self._wheel.values())):
            self._end(runner, f"killed by SIGABRT: {error}")
        self._wheel.clear()

    # ---- answering ------------------------------------------------------------------------------

    def _plan(self, runner: _Runner) -> None:
        """Its next beat: at first as often as a real runner's, then more and more seldom."""
        runner.due = self._step + max(1, round(runner.interval_s / STEP_S))
        self._wheel.setdefault(runner.due, []).append(runner)

    def _beat(self, runner: _Runner) -> None:
        runner.host.post(RunnerProgressed(runner.slot, runner.number, runner.progress))
        runner.interval_s = min(2 * runner.interval_s, self._terms.beat_s)
        self._plan(runner)

    async def _turn(self) -> None:
        self._step += 1
        due = [one for one in self._wheel.pop(self._step, ()) if one.due == self._step]
        for runner in due:
            if runner.phase is _Phase.READY or _is_starved(runner):
                self._beat(runner)
        fed = [one for one in due if one.phase is _Phase.SERVING and not _is_starved(one)]
        for runners in _alike(fed):
            first = runners[0]
            question = Question(
                version=first.version.manifest_digest,
                shadow=first.shadow.manifest_digest if first.shadow else None,
                runners=len(runners),
                examples=max(1, round(self._terms.examples_per_s * first.interval_s)),
                sample_fraction=self._terms.sample_fraction,
            )
            try:
                answers = await self._inference.answer(question)
            except WorkerDiedError as error:
                self._worker_died(error)
                for runner in runners:
                    self._end(runner, f"killed by SIGABRT: {error}")
                return
            self.examples += question.runners * question.examples
            self._take(runners, question.examples, answers)

    def _take(self, runners: Sequence[_Runner], examples: int, answers: Answers) -> None:
        now = self._clock.monotonic()
        sampled: dict[int, list[Sampled]] = {}
        for sample in answers.samples:
            sampled.setdefault(sample.runner, []).append(sample)
        for index, runner in enumerate(runners):
            if runner.phase is not _Phase.SERVING or self._strikes(runner):
                continue
            self._add(runner, index, examples, answers)
            for sample in () if runner.challenges else sampled.get(index, ()):
                runner.host.post(RunnerSaid(runner.slot, _sample(runner, sample, self._clock)))
            self._beat(runner)
            if now >= runner.window_ends:
                self._close_window(runner)

    def _strikes(self, runner: _Runner) -> bool:
        """Whether its misbehaviour takes the answers from it: it is gone, or says no more."""
        if runner.misbehaves == "crash":
            self._end(runner, "killed by SIGSEGV")
        return runner.misbehaves in ("crash", "hang")

    def _add(self, runner: _Runner, index: int, examples: int, answers: Answers) -> None:
        before = runner.progress
        errors = examples if answers.problem else 0
        nonfinite = int(answers.nonfinite[index])
        if runner.misbehaves == "nan":
            nonfinite = examples - errors
        elif runner.counts is not None:
            runner.counts += answers.counts[index]
        runner.errors += errors
        runner.nonfinite += nonfinite
        runner.compared += int(answers.compared[index])
        runner.disagreed += int(answers.disagreed[index])
        slow = runner.misbehaves == "slow"
        runner.progress = Progress(
            examples=before.examples + examples - errors - nonfinite,
            errors=before.errors + errors,
            nonfinite=before.nonfinite + nonfinite,
            latency_p95_us=SLOW_LATENCY_US if slow else answers.latency_us,
            shadow_latency_p95_us=answers.shadow_latency_us,
            memory_bytes=before.memory_bytes,
            first_error=before.first_error or answers.problem[:TEXT_MAX_CHARS],
        )

    def _new_window(self, runner: _Runner) -> None:
        runner.started_at = self._clock.wall()
        runner.window_ends = self._clock.monotonic() + self._terms.window_s
        runner.counts = np.zeros(runner.layout.width, dtype=np.int32)
        runner.errors = runner.nonfinite = runner.compared = runner.disagreed = 0

    def _close_window(self, runner: _Runner) -> None:
        summary = _summary(runner, self._clock.wall())
        if runner.challenges:
            runner.host.post(RunnerSaid(runner.slot, _beside_champion(runner, summary)))
        else:
            runner.host.post(RunnerSaid(runner.slot, summary))
        self._new_window(runner)


def _is_starved(runner: _Runner) -> bool:
    """A challenger whose champion is gone: it waits to be stopped."""
    return runner.fed_by is not None and runner.fed_by.phase is _Phase.GONE


def _damage(runner: _Runner, loaded: Loaded) -> str:
    """What the real runner says of files that are not what was offered; empty: they are."""
    disk, version = runner.host.disk, runner.version
    if disk.digest(manifest_path(version.manifest_digest)) != version.manifest_digest:
        return f"the stored manifest of {version} is not what was offered"
    if disk.digest(model_path(version.manifest_digest)) != loaded.artifact_digest:
        return f"the stored model of {version} is damaged: digest mismatch"
    return ""


def _alike(runners: Iterable[_Runner]) -> list[list[_Runner]]:
    """Those that the same sessions answer, the same number of examples."""
    groups: dict[tuple[str, str, float], list[_Runner]] = {}
    for runner in runners:
        shadow = runner.shadow.manifest_digest if runner.shadow else ""
        key = (runner.version.manifest_digest, shadow, runner.interval_s)
        groups.setdefault(key, []).append(runner)
    return list(groups.values())


def _summary(runner: _Runner, ended_at: float) -> WindowSummary:
    layout, counts = runner.layout, runner.counts.tolist() if runner.counts is not None else []
    confidence_at = layout.labels + layout.confidence_bins
    ends = list(itertools.accumulate(layout.feature_bins, initial=confidence_at))
    comparison = None
    if runner.shadow is not None and runner.compared:
        comparison = Comparison(
            shadow=runner.shadow, count=runner.compared, disagreements=runner.disagreed
        )
    latency_us = runner.progress.latency_p95_us or 0.0
    return WindowSummary(
        slot=runner.slot,
        version=runner.version,
        started_at=runner.started_at,
        ended_at=ended_at,
        count=sum(counts[: layout.labels]),
        errors=runner.errors,
        nonfinite=runner.nonfinite,
        latency_p50_us=latency_us,
        latency_p95_us=latency_us,
        memory_bytes=runner.progress.memory_bytes,
        predictions=tuple(counts[: layout.labels]),
        confidence=tuple(counts[layout.labels : confidence_at]),
        features=tuple(tuple(counts[a:b]) for a, b in itertools.pairwise(ends)),
        comparison=comparison,
    )


def _beside_champion(runner: _Runner, summary: WindowSummary) -> ShadowSummary:
    assert runner.shadow is not None  # what it is fed by
    return ShadowSummary(
        champion=runner.shadow,
        window=summary.model_copy(update={"comparison": None}),
        disagreements=runner.disagreed,
    )


def _sample(runner: _Runner, sampled: Sampled, clock: Clock) -> Sample:
    named = runner.shadow is not None and sampled.shadow_prediction is not None
    return Sample(
        slot=runner.slot,
        version=runner.version,
        taken_at=clock.wall(),
        reference=sampled.reference,
        features=sampled.features,
        prediction=sampled.prediction,
        confidence=sampled.confidence,
        shadow=runner.shadow if named else None,
        shadow_prediction=sampled.shadow_prediction if named else None,
    )
