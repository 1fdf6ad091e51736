"""Where later versions come from in a virtual world: really trained, or scripted.

Invariant: what comes of a run depends on its input and its number alone.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.config import LimitsConfig
from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.interface import Interface
from edgeloop_controller.packaging.runtime_child import LOADERS, outputs_of
from edgeloop_controller.services.candidate import (
    Candidate,
    CandidateMaker,
    Candidates,
    MakeCandidates,
    next_version,
)
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import TrainingRun
from edgeloop_controller.training.dataset import INPUT_FILE, HeldBack, TrainingInput
from edgeloop_controller.training.evaluation import Comparison
from edgeloop_controller.training.executor import (
    Ending,
    Executor,
    LocalExecutor,
    Outcome,
    TrainingJob,
)
from edgeloop_protocol.manifest import Artifact, Evaluation, Lineage, Manifest
from edgeloop_simulators.virtual.models.recorded import RecordedModel
from edgeloop_simulators.virtual.models.recordings import Recordings
from edgeloop_simulators.virtual.spec.behaviour import Behaviour

REMEMBERED_MAX: Final = 64
"""Runs whose models are kept: a few KB each, for small models."""


class FunctionExecutor:
    """The Executor port over a Python function that writes model.onnx, and what else a script may
    write, into the directory that it is given."""

    def __init__(self, train: Callable[[TrainingInput, Path], None]) -> None:
        self._train = train

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        if cancel.is_set():
            return Outcome(Ending.CANCELLED, "the run was cancelled", 0.0)
        try:
            output = _emptied(job.directory / "output")
            document = (job.directory / INPUT_FILE).read_text(encoding="utf-8")
            self._train(TrainingInput.model_validate_json(document), output)
        except Exception as error:  # whatever it is, it is the function's
            return Outcome(Ending.FAILED, f"training failed: {error}", 0.0, exit_code=1)
        return _written(output)


class RememberingExecutor:
    """The Executor port over another one that is asked once for each input: a world that is played
    again, to be shrunk or looked at, need not train again. It follows that a script which is not
    deterministic becomes so."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._known: dict[str, Mapping[str, bytes]] = {}

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        try:
            key = _input_digest(job)
        except OSError:  # a script that is not there, an input that is a directory
            return self._inner.run(job, cancel)
        if key in self._known:
            output = _emptied(job.directory / "output")
            for name, content in self._known[key].items():
                (output / name).write_bytes(content)
            return _written(output)
        outcome = self._inner.run(job, cancel)
        if outcome.ending is Ending.SUCCEEDED and len(self._known) < REMEMBERED_MAX:
            files = (outcome.model, outcome.draft, outcome.baseline)
            self._known[key] = {path.name: path.read_bytes() for path in files if path is not None}
        return outcome


def _input_digest(job: TrainingJob) -> str:
    """Of all that a script can learn from, but for paths below the run's own directory."""
    document = (job.directory / INPUT_FILE).read_text(encoding="utf-8")
    given = TrainingInput.model_validate_json(document)
    known = given.model_copy(update={"train_file": None})
    digest = hashlib.sha256(known.model_dump_json().encode())
    files = [job.script, *map(Path, given.inputs.values())]
    if given.train_file is not None:
        files.append(Path(given.train_file))
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _emptied(output: Path) -> Path:
    """What an interrupted attempt left there is not this one's."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    return output


def _written(output: Path) -> Outcome:
    """What is in an output directory, as an executor says it."""
    paths = [output / name for name in ("model.onnx", "model.toml", "baseline.parquet")]
    model, draft, baseline = (path if path.is_file() else None for path in paths)
    if model is None:
        return Outcome(Ending.NO_MODEL, "nothing wrote a model.onnx", 0.0, exit_code=0)
    return Outcome(Ending.SUCCEEDED, "trained", 0.0, 0, model, draft, baseline)


class RecordedTraining:
    """Real training on what was labelled, and real inference with what came of it.

    `executor`: by default the policy's script in a process of its own, once for each input; or a
    FunctionExecutor. Models are packaged by the real checks, but run in this process: the script
    is the world's own, and a child for every check would cost more than all the rest.
    """

    def __init__(self, recordings: Recordings, executor: Executor | None = None) -> None:
        self.executor: Executor = executor or RememberingExecutor(LocalExecutor())
        self.make_candidates: MakeCandidates = partial(Candidates, run=run_here)
        self._recordings = recordings

    def behaviour(self, run_id: int, manifest: Manifest, artifact: bytes) -> Behaviour:  # noqa: ARG002
        return RecordedModel(manifest, artifact, self._recordings)


def run_here(
    model: bytes, inputs: NDArray[np.float32], interface: Interface
) -> Mapping[str, NDArray[Any]]:
    """As packaging.runtime.run_model, without the child process. Raises PackagingError."""
    try:
        return outputs_of(LOADERS[interface.runtime]()(model, interface), inputs, interface)
    except Exception as error:  # the runtime raises its own unrelated types
        raise PackagingError(f"the model cannot be run: {error}") from error


@dataclass(frozen=True)
class ScriptedVersion:
    """What a scripted run comes to: how the next version behaves, and how it is judged."""

    behaviour: Behaviour
    accuracy: float = 0.9
    parent_accuracy: float = 0.6
    disagreement: float = 0.4


class ScriptedTraining:
    """For models that are no files: run n gives the n-th of `versions`, and the last one again
    and again. Its executor succeeds and writes nothing."""

    def __init__(self, versions: Sequence[ScriptedVersion]) -> None:
        self.executor: Executor = self
        self.make_candidates: MakeCandidates = self._candidates
        self._versions = tuple(versions)

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:  # noqa: ARG002 - the port's
        return Outcome(Ending.SUCCEEDED, "as scripted", 0.0, exit_code=0)

    def behaviour(self, run_id: int, manifest: Manifest, artifact: bytes) -> Behaviour:  # noqa: ARG002
        return self.version(run_id).behaviour

    def version(self, run_id: int) -> ScriptedVersion:
        return self._versions[min(run_id, len(self._versions)) - 1]

    def _candidates(
        self, database: Database, registry: Registry, publishing: Publishing, limits: LimitsConfig
    ) -> CandidateMaker:
        return _ScriptedCandidates(
            self, database, Candidates(database, registry, publishing, limits)
        )


class _ScriptedCandidates:
    """The CandidateMaker of scripted versions: as their parent but for what the script says."""

    def __init__(self, training: ScriptedTraining, database: Database, real: Candidates) -> None:
        self._training, self._database, self._real = training, database, real

    def make(
        self,
        run: TrainingRun,
        parent: Manifest,
        outcome: Outcome,  # noqa: ARG002 - the port's
        examples: HeldBack,
    ) -> Candidate:
        scripted = self._training.version(run.id)
        with self._database.reading() as session:
            version = next_version(session, parent.name)
        model = f"{parent.name}@{version}, scripted, of run {run.id}".encode()
        evaluation = Evaluation(
            examples=len(examples.labels),
            accuracy=scripted.accuracy,
            against=parent.ref(),
            against_accuracy=scripted.parent_accuracy,
            disagreement=scripted.disagreement,
        )
        artifact = Artifact(
            digest=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
            runtime=parent.artifact.runtime,
            opset=parent.artifact.opset,
            ir_version=parent.artifact.ir_version,
            operators=parent.artifact.operators,
        )
        manifest = parent.model_copy(
            update={
                "version": version,
                "artifact": artifact,
                "evaluation": evaluation,
                "lineage": Lineage(parent=parent.ref(), training_run=str(run.id)),
            }
        )
        return Candidate(model, manifest, Comparison(evaluation, {}))

    def publish(self, run: TrainingRun, candidate: Candidate) -> Manifest:
        return self._real.publish(run, candidate)
