"""A runner process in virtual time, from its start to its exit.

What a real runner does to its supervisor is done here: it verifies the files that it loads, says
how its self-test went, waits for its turn at the source, beats, closes windows, dies, hangs.

Invariants: every word is posted, none is said after the end; exactly one RunnerExited follows each
start, unless the whole device died; what is loaded has the digests that the version names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    Event,
    Progress,
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.ports import Disk, RunnerSaid
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import ManifestError
from edgeloop_protocol.messages import (
    Sample,
    ShadowBudget,
    ShadowSummary,
    VersionRef,
    WindowSummary,
)
from edgeloop_simulators.virtual.device.known import parse_known
from edgeloop_simulators.virtual.device.window import Window
from edgeloop_simulators.virtual.kernel.loop import EventLoop, Timer
from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.world import AgentTiming, DeviceSpec

OPEN_SOURCE_S: Final = 0.05
EXIT_S: Final = 0.05
SAMPLES_MAX_A_WINDOW: Final = 20


class RunnerWatcher(Protocol):
    """Who looks at what runners do: the device's host."""

    def runner_started(self, runner: "VirtualRunner") -> None: ...

    def runner_serves(self, runner: "VirtualRunner") -> None: ...

    def runner_exited(self, runner: "VirtualRunner", why: str) -> None: ...

    def window_closed(self, runner: "VirtualRunner", window: Window) -> None: ...


@dataclass(frozen=True)
class RunnerWorld:
    """What all runners of a device share."""

    loop: EventLoop
    device: DeviceSpec
    timing: AgentTiming
    behaviours: Mapping[str, Behaviour]
    """By manifest digest."""
    disk: Disk
    clock: Clock
    luck: Luck
    post: Callable[[Event | RunnerSaid], None]
    watcher: RunnerWatcher


class VirtualRunner:
    __slots__ = (
        "_behaviour",
        "_forget",
        "_hung",
        "_shadow_behaviour",
        "_skipped",
        "_source",
        "_taken",
        "_timer",
        "_window",
        "_window_ends",
        "_world",
        "budget",
        "examples",
        "exiting",
        "nonfinite",
        "number",
        "serving_since",
        "shadow",
        "slot",
        "version",
    )

    def __init__(
        self, world: RunnerWorld, start: StartRunner, forget: Callable[["VirtualRunner"], None]
    ) -> None:
        self._world = world
        self._forget = forget
        self.slot, self.number = start.slot, start.runner
        self.version: VersionRef = start.version
        self.shadow: VersionRef | None = start.shadow
        self.budget: ShadowBudget | None = start.budget
        """Of a challenger; None: it answers."""
        self._source: VirtualRunner | None = None
        self._skipped = 0
        self.serving_since: float | None = None
        self.examples = self.nonfinite = 0
        self.exiting = False
        self._hung = False
        self._behaviour: Behaviour | None = None
        self._shadow_behaviour: Behaviour | None = None
        self._timer: Timer | None = None
        self._taken = 0
        self._window_ends = 0.0
        self._window = Window(0.0)

    def begin(self) -> None:
        behaviour = self._world.behaviours.get(self.version.manifest_digest)
        load_s = behaviour.load_s if behaviour is not None else 0.1
        self._in(load_s / self._world.device.kind.cpu_speed, self._loaded)

    def go(self) -> None:
        if not self.exiting and self._behaviour is not None:
            self._in(OPEN_SOURCE_S, self._serve)

    def shadow_of(self, source: "VirtualRunner") -> None:
        """Of a challenger: see what `source` answers, from now on."""
        if not self.exiting and self._behaviour is not None:
            self._source, self._shadow_behaviour = source, source._behaviour
            self._in(OPEN_SOURCE_S, self._serve)

    def drop_shadow(self) -> None:
        if self.serving_since is not None and not self._hung:
            self._look()
            self._close_window()
        self.shadow = self._shadow_behaviour = None

    def stop(self, kill: bool) -> None:
        if self.exiting or (self._hung and not kill):
            return
        if not kill and self.serving_since is not None:
            self._look()
            self._close_window()
        self._exit("killed by SIGKILL" if kill else "exit status 0")

    def silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.exiting = True

    def _loaded(self) -> None:
        world = self._world
        problem = self._load()
        if problem or self._behaviour is None:
            world.post(RunnerSelfTested(self.slot, self.number, False, problem))
            self._exit("exit status 1")
            return
        problem = self._behaviour.self_test_problem(world.device.kind.architecture)
        world.post(RunnerSelfTested(self.slot, self.number, not problem, problem))
        self._wait_for_go()

    def _load(self) -> str:
        """What keeps it from loading, in words; as the real runner it verifies what it reads."""
        disk, digest = self._world.disk, self.version.manifest_digest
        if disk.digest(manifest_path(digest)) != digest:
            return "the manifest on disk is not the version's"
        try:
            manifest = parse_known(disk.read(manifest_path(digest)))
        except (OSError, ManifestError) as error:
            return f"the manifest cannot be read: {error}"
        if disk.digest(model_path(digest)) != manifest.artifact.digest:
            return "the model on disk is not the version's"
        self._behaviour = self._world.behaviours.get(digest)
        if self._behaviour is None:
            return "no behaviour is known for this model"
        if self.shadow is not None:
            self._shadow_behaviour = self._load_shadow(self.shadow)
        return ""

    def _load_shadow(self, shadow: VersionRef) -> Behaviour | None:
        if self._world.disk.digest(manifest_path(shadow.manifest_digest)) is None:
            return None
        return self._world.behaviours.get(shadow.manifest_digest)

    def _wait_for_go(self) -> None:
        """It beats while it waits, as the real one does."""
        self._world.post(RunnerProgressed(self.slot, self.number, self._progress()))
        self._in(self._world.timing.progress_s, self._wait_for_go)

    def _serve(self) -> None:
        now = self._world.loop.now_s
        self.serving_since = now
        self._window = Window(self._world.clock.wall())
        self._window_ends = now + self._world.timing.window_s
        self._world.post(RunnerServing(self.slot, self.number))
        if self.budget is None:
            self._world.watcher.runner_serves(self)
        timing = self._world.timing
        self._in(timing.first_progress_s or timing.progress_s, self._turn)

    def _turn(self) -> None:
        if not self._look():
            return
        self._world.post(RunnerProgressed(self.slot, self.number, self._progress()))
        if self._world.loop.now_s >= self._window_ends:
            self._close_window()
            self._window_ends = self._world.loop.now_s + self._world.timing.window_s
        self._in(self._world.timing.progress_s, self._turn)

    def _look(self) -> bool:
        """Answer what came since the last look; False: it died or hangs over it."""
        world, behaviour, since = self._world, self._behaviour, self.serving_since
        if behaviour is None or since is None or self._hung:
            return False
        now = world.loop.now_s
        due = int((now - since) * world.timing.examples_per_s)
        fresh = self._within_budget(due - self._taken, behaviour)
        architecture = world.device.kind.architecture
        if _reached(behaviour.crashes_after(architecture), due):
            self._exit("killed by SIGSEGV")
            return False
        if _reached(behaviour.hangs_after(architecture), due):
            self._hung = True
            return False
        if fresh > 0:
            self._taken = due
            answers = behaviour.answer(
                world.device.surroundings, now, fresh, self._shadow_behaviour, world.luck
            )
            self._window.add(answers)
            self.examples += answers.count
            self.nonfinite += answers.nonfinite
            self._sample(fresh)
        return True

    def _within_budget(self, fresh: int, behaviour: Behaviour) -> int:
        """How many of them it looks at; a challenger whose champion is gone sees none."""
        if self.budget is None:
            return fresh
        if self._source is None or self._source.exiting:
            return 0
        example_s = self._latency_us(behaviour) / 1e6
        span_s = fresh / self._world.timing.examples_per_s
        seen = min(fresh, int(self.budget.cpu_fraction * span_s / example_s))
        self._skipped += fresh - seen
        return seen

    def _sample(self, fresh: int) -> None:
        world = self._world
        if self.budget is not None:
            return
        expected = fresh * world.timing.sample_fraction
        for _ in range(min(SAMPLES_MAX_A_WINDOW, int(expected + world.luck.random()))):
            self._say_sample()

    def _say_sample(self) -> None:
        world, behaviour = self._world, self._behaviour
        assert behaviour is not None
        answered = behaviour.sample(
            world.device.surroundings, world.loop.now_s, self._shadow_behaviour, world.luck
        )
        if answered is None:
            return
        named = self.shadow is not None and answered.shadow_prediction is not None
        world.post(
            RunnerSaid(
                self.slot,
                Sample(
                    slot=self.slot,
                    version=self.version,
                    taken_at=world.clock.wall(),
                    reference=answered.reference,
                    features=answered.features,
                    prediction=answered.prediction,
                    confidence=answered.confidence,
                    shadow=self.shadow if named else None,
                    shadow_prediction=answered.shadow_prediction if named else None,
                ),
            )
        )

    def _close_window(self) -> None:
        world, window, behaviour = self._world, self._window, self._behaviour
        assert behaviour is not None
        wall = world.clock.wall()
        shadow = self.shadow if self._shadow_behaviour is not None else None
        summary = window.summary(
            self.slot, self.version, behaviour, self._latency_us(behaviour), shadow, wall
        )
        if self._source is not None:
            self._say_shadow(summary, self._source)
        elif self.budget is None:
            world.post(RunnerSaid(self.slot, summary))
            world.watcher.window_closed(self, window)
        self._window = Window(wall)

    def _say_shadow(self, summary: WindowSummary, source: "VirtualRunner") -> None:
        cpu_s = summary.count * summary.latency_p95_us / 1e6
        said = ShadowSummary(
            champion=source.version,
            window=summary.model_copy(update={"comparison": None}),
            disagreements=self._window.disagreements,
            skipped=self._skipped,
            cpu_s=cpu_s,
        )
        self._skipped = 0
        self._world.post(RunnerSaid(self.slot, said))

    def _progress(self) -> Progress:
        behaviour = self._behaviour
        if behaviour is None:
            return Progress()
        shadow = self._shadow_behaviour
        return Progress(
            examples=self.examples,
            nonfinite=self.nonfinite,
            latency_p95_us=self._latency_us(behaviour) if self.examples else None,
            shadow_latency_p95_us=self._latency_us(shadow) if shadow and self.examples else None,
            memory_bytes=behaviour.memory_bytes,
        )

    def _latency_us(self, behaviour: Behaviour) -> float:
        return behaviour.latency_us / self._world.device.kind.cpu_speed

    def _exit(self, why: str) -> None:
        self.exiting = True
        self._in(EXIT_S, lambda: self._exited(why))

    def _exited(self, why: str) -> None:
        self._forget(self)
        self._world.watcher.runner_exited(self, why)
        self._world.post(RunnerExited(self.slot, self.number, why))

    def _in(self, delay_s: float, action: Callable[[], None]) -> None:
        """One timer at a time: what comes replaces what was planned."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._world.loop.call_in(delay_s, action)


def _reached(limit: int | None, due: int) -> bool:
    return limit is not None and due >= limit
