"""The retraining of a virtual world: policies, runs and the annotator, called when they are due.

`composition.build` is given the host's `executor` and `make_candidates`; whoever builds a
controller on them attaches its parts here, and says so when it is killed.

Invariants: one run at a time, as the scheduler of a real controller has it; a run in which a
controller was killed runs nothing further; every version that is published from here has its
behaviour before any device can hear of it; the annotator outlives the controllers.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeloop.toml_text import toml_text
from edgeloop_controller.composition import Parts
from edgeloop_controller.config import LimitsConfig, RetrainingConfig
from edgeloop_controller.services.candidate import Candidate, CandidateMaker
from edgeloop_controller.services.labelling import GivenLabel
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import samples
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import TrainingRun
from edgeloop_controller.training.dataset import HeldBack
from edgeloop_controller.training.executor import Outcome
from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.annotator import Annotator
from edgeloop_simulators.virtual.controller.executor import VirtualExecutor
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.kernel.tasks import Task
from edgeloop_simulators.virtual.spec.behaviour import Behaviour
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec

PART: Final = "controller"


@dataclass(frozen=True)
class RetrainingWorld:
    """What the host is given of the world around it.

    `behaviours`, by manifest digest, are all runners'; `wake` is given what is to go on after a
    virtual pause and runs it, minding a controller that is killed in it.
    """

    loop: EventLoop
    behaviours: MutableMapping[str, Behaviour]
    observe: Observe
    wake: Callable[[Callable[[], None]], None]
    seed: int


class RetrainingHost:
    def __init__(self, world: RetrainingWorld, spec: RetrainingSpec) -> None:
        self._world, self._spec = world, spec
        self._parts: Parts | None = None
        self._task: Task | None = None
        self._annotator = Annotator(self, spec.truth_of, spec.annotator, world.seed)
        self.executor = VirtualExecutor(spec.training.executor, spec.duration_s, self._sleep)

    def config(self, data_dir: Path) -> RetrainingConfig:
        """Write the policy's file below `data_dir`; what a controller there is configured with."""
        directory = data_dir / "policies"
        directory.mkdir(parents=True, exist_ok=True)
        text = toml_text(self._spec.policy.model_dump(mode="json"))
        (directory / f"{self._spec.policy.name}.toml").write_text(text, encoding="utf-8")
        return RetrainingConfig(policies_dir=directory, provenance=False)

    def make_candidates(
        self, database: Database, registry: Registry, publishing: Publishing, limits: LimitsConfig
    ) -> CandidateMaker:
        real = self._spec.training.make_candidates(database, registry, publishing, limits)
        return _Followed(real, self._published)

    def attach(self, parts: Parts) -> None:
        """A controller has started: what a kill interrupted is taken up again."""
        self._parts = parts
        parts.training_runs.take_up_interrupted()

    def killed(self) -> None:
        """The controller is gone, in the midst of whatever it did."""
        self._parts = None
        task, self._task = self._task, None
        if task is not None:
            task.kill()

    def tick(self) -> None:
        """Policies, then the oldest pending run, then labels that are due."""
        if self._parts is None:
            return
        self._parts.services.retraining.look()
        if self._task is None:
            self._task = Task(self._world.loop, self._work, self._world.wake)
            self._task.begin()
        if self._spec.annotator.fraction > 0:
            self._annotator.turn(self._world.loop.now_s)

    def _work(self) -> None:
        assert self._parts is not None
        self._parts.training_runs.work()
        self._task = None

    def _sleep(self, delay_s: float) -> None:
        assert self._task is not None
        self._task.sleep(delay_s)

    def _published(self, run: TrainingRun, candidate: Candidate) -> None:
        manifest, digest = candidate.manifest, candidate.manifest.digest()
        training = self._spec.training
        self._world.behaviours[digest] = training.behaviour(run.id, manifest, candidate.model)
        data: dict[str, Any] = {"run": run.id, "version": f"{manifest.name}@{manifest.version}"}
        data["manifest_digest"] = digest
        now_s = self._world.loop.now_s
        self._world.observe(Seen(now_s, PART, "training.publishes", data))

    # ---- the annotator's LabellingApi -----------------------------------------------------------

    def unlabelled_samples(self, after: int, limit: int) -> Sequence[dict[str, Any]]:
        assert self._parts is not None
        with self._parts.services.database.reading() as session:
            return [
                {"id": s.id, "device_id": s.device_id, "reference": s.reference}
                for s, _ in samples.page(session, after, limit, unlabelled=True)
            ]

    def give_labels(self, labels: Sequence[dict[str, Any]], annotator: str) -> None:
        assert self._parts is not None
        given = [GivenLabel(one["sample_id"], one["label"]) for one in labels]
        self._parts.services.labelling.put(given, annotator)


class _Followed:
    """A CandidateMaker that tells of each version just before it is published."""

    def __init__(
        self, real: CandidateMaker, publishes: Callable[[TrainingRun, Candidate], None]
    ) -> None:
        self._real, self._publishes = real, publishes

    def make(
        self, run: TrainingRun, parent: Manifest, outcome: Outcome, examples: HeldBack
    ) -> Candidate:
        return self._real.make(run, parent, outcome, examples)

    def publish(self, run: TrainingRun, candidate: Candidate) -> Manifest:
        self._publishes(run, candidate)
        return self._real.publish(run, candidate)
