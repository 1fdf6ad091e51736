"""What a script wrote → a packaged candidate, judged beside its parent → a published version.

Invariants: a candidate is packaged by the same checks as a model that a person publishes; what
the script left out (draft, baseline) comes from the parent and from the training data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from edgeloop_controller.config import LimitsConfig
from edgeloop_controller.errors import TooLargeError, TrainingError
from edgeloop_controller.packaging.package import draft_like, load_draft, package, read_baseline
from edgeloop_controller.packaging.runtime import RunModel, run_model
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import TrainingRun
from edgeloop_controller.training.dataset import TRAIN_FILE, HeldBack
from edgeloop_controller.training.evaluation import Comparison, evaluate
from edgeloop_controller.training.executor import Outcome
from edgeloop_protocol.manifest import Lineage, Manifest


@dataclass(frozen=True)
class Candidate:
    model: bytes
    manifest: Manifest
    comparison: Comparison


class CandidateMaker(Protocol):
    """The port between a training run and the versions that come of it."""

    def make(
        self, run: TrainingRun, parent: Manifest, outcome: Outcome, examples: HeldBack
    ) -> Candidate:
        """Raises PackagingError or TrainingError."""

    def publish(self, run: TrainingRun, candidate: Candidate) -> Manifest:
        """Raises VersionConflictError when a person took the number meanwhile."""


class MakeCandidates(Protocol):
    """How the composition root comes by a CandidateMaker; `Candidates` is the real one."""

    def __call__(
        self, database: Database, registry: Registry, publishing: Publishing, limits: LimitsConfig
    ) -> CandidateMaker: ...


class Candidates:
    """The CandidateMaker of real models; `run` is how they are run: in a child process."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        publishing: Publishing,
        limits: LimitsConfig,
        run: RunModel = run_model,
    ) -> None:
        self._database = database
        self._registry = registry
        self._publishing = publishing
        self._model_max_bytes = limits.upload_max_bytes
        self._baseline_max_bytes = limits.baseline_max_bytes
        self._run_model = run

    def make(
        self, run: TrainingRun, parent: Manifest, outcome: Outcome, examples: HeldBack
    ) -> Candidate:
        """Raises PackagingError or TrainingError."""
        if outcome.model is None:
            raise TrainingError("the script ended well but left no model.onnx in its output")
        model = _read(outcome.model, self._model_max_bytes)
        draft = draft_like(parent)
        if outcome.draft is not None:
            draft = load_draft(outcome.draft.read_text(encoding="utf-8"), "output/model.toml")
        with self._database.reading() as session:
            version = next_version(session, parent.name)
        manifest = package(
            model,
            parent.name,
            version,
            draft,
            self._baseline(run, parent, outcome),
            lineage=Lineage(parent=parent.ref(), training_run=str(run.id)),
            run=self._run_model,
        )
        parent_model = self._registry.artifacts.get(parent.artifact.digest)
        comparison = evaluate(manifest, model, parent, parent_model, examples, run=self._run_model)
        judged = manifest.model_copy(update={"evaluation": comparison.evaluation})
        return Candidate(model, judged, comparison)

    def publish(self, run: TrainingRun, candidate: Candidate) -> Manifest:
        """Raises VersionConflictError when a person took the number meanwhile."""
        published = self._publishing.publish(
            candidate.model, candidate.manifest, training_run_id=run.id
        )
        return published.manifest

    def _baseline(self, run: TrainingRun, parent: Manifest, outcome: Outcome) -> pa.Table:
        """The script's own, else what it was given: sampled on the devices, grouped by device."""
        if outcome.baseline is not None:
            content = _read(outcome.baseline, self._baseline_max_bytes)
            return read_baseline(content, "output/baseline.parquet")
        table = pq.read_table(Path(run.directory) / TRAIN_FILE)
        names = [feature.name for feature in parent.features]
        columns = {name: table[name] for name in names}
        return pa.table({**columns, "group": table["device"], "label": table["label"]})


def next_version(session: Session, name: str) -> str:
    """One more than the newest: 3 → 4, 1.4.2 → 1.4.3, spring → spring.1; never one that exists."""
    taken = {row.version for row in versions.of_model(session, name)}
    newest = versions.require_model(session, name)[-1].version
    while newest in taken:
        head, dot, last = newest.rpartition(".")
        newest = f"{head}{dot}{int(last) + 1}" if last.isdecimal() else f"{newest}.1"
    return newest


def _read(path: Path, limit: int) -> bytes:
    size_bytes = path.stat().st_size
    if size_bytes > limit:
        raise TooLargeError(
            f"the script wrote {path.name} of {size_bytes} bytes; the limit is {limit}",
            hint="raise it in [limits] of the controller's configuration",
        )
    return path.read_bytes()
