"""Recordings as the source of a scenario: real models, real inference, real retraining.

Invariants: the devices' streams are the dataset's portions, in its order; a version is packaged as
publishing packages it; what training writes goes to the directory that it is given.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from edgeloop_controller.errors import ControllerError
from edgeloop_controller.packaging.package import load_draft, package, read_baseline
from edgeloop_protocol.manifest import Manifest, ManifestDraft
from edgeloop_simulators.datasets.generator import generate
from edgeloop_simulators.datasets.tabular import load_tabular
from edgeloop_simulators.datasets.watch import load_watch
from edgeloop_simulators.datasets.windows import Dataset, windows_table
from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.scenario import Annotator, TabularData, WatchData
from edgeloop_simulators.virtual.models.function import (
    FunctionModel,
    function_artifact,
    function_manifest,
)
from edgeloop_simulators.virtual.models.recorded import RecordedModel
from edgeloop_simulators.virtual.models.recorded_fleet import RecordedFleet, recorded_fleet
from edgeloop_simulators.virtual.models.recordings import Recordings, recordings_of
from edgeloop_simulators.virtual.models.training import run_here
from edgeloop_simulators.virtual.scenario.load import LoadedVirtual
from edgeloop_simulators.virtual.scenario.model_tables import (
    FunctionTable,
    MachinesData,
    OnnxTable,
    TrainedTable,
)
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec
from edgeloop_simulators.virtual.spec.world import ModelSpec

OWN_SCRIPTS = {"watch": "watch/train.py", "machines": "machines/train.py"}
"""Of the kinds of data that ship with one."""
TIMEOUT_TIMES = 4.0
"""How much longer than it takes a run may last, unless the policy says."""


class RecordedSource:
    """Raises DatasetError, FirstVersionError or ScenarioError for files that cannot be used."""

    def __init__(self, loaded: LoadedVirtual, directory: Path) -> None:
        self._loaded = loaded
        self._trained = [m for m in loaded.scenario.models if isinstance(m, TrainedTable)]
        self._dataset = _dataset(loaded)
        self._fleet = self._train(directory) if self._trained else None
        self._recordings: Recordings = (
            self._fleet.recordings if self._fleet else recordings_of(self._dataset)
        )

    def streams(self) -> Sequence[str]:
        return [portion.device_id for portion in self._dataset.portions]

    def models(self) -> tuple[ModelSpec, ...]:
        trained = iter(self._fleet.models if self._fleet else ())
        found: list[ModelSpec] = []
        for table in self._loaded.scenario.models:
            if isinstance(table, OnnxTable):
                found.append(self._onnx(table))
            elif isinstance(table, FunctionTable):
                found.append(self._function(table))
            else:
                found.append(next(trained))
        return tuple(found)

    def retraining(self) -> RetrainingSpec | None:
        table = self._loaded.scenario.retraining
        if table is None:
            return None
        assert self._fleet is not None  # `references` asks for a trained model
        try:
            return self._fleet.retraining(
                {"timeout_s": TIMEOUT_TIMES * table.takes} | table.policy,
                annotator=Annotator(fraction=table.labelled, delay_s=table.label_delay, poll_s=60),
                duration_s=table.takes,
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ScenarioError(f"retraining.policy.{key}: {first['msg']}") from error

    def _train(self, directory: Path) -> RecordedFleet:
        first, *spoilt = self._trained
        script = first.script
        if script is None:
            own = OWN_SCRIPTS[self._loaded.scenario.data.kind]
            script = Path(str(files("edgeloop_simulators") / "scenarios" / own))
        return recorded_fleet(
            self._dataset,
            self._loaded.resolve(script),
            first.name.partition("@")[0],
            directory,
            bad=[table.spoilt for table in spoilt if table.spoilt is not None],
        )

    def _onnx(self, table: OnnxTable) -> ModelSpec:
        artifact = self._loaded.resolve(table.file).read_bytes()
        manifest = self._manifest(table, artifact)
        behaviour = RecordedModel(
            manifest,
            artifact,
            self._recordings,
            latency_us=table.latency * 1e6,
            memory_bytes=table.memory,
            load_s=table.load,
        )
        return ModelSpec(manifest, artifact, behaviour)

    def _function(self, table: FunctionTable) -> ModelSpec:
        name, _, version = table.name.partition("@")
        artifact = function_artifact(table.name)
        answering = None if table.bad else table.function
        manifest = function_manifest(name, version, artifact, self._dataset, answering)
        model = FunctionModel(manifest, table.function)
        behaviour = RecordedModel(manifest, artifact, self._recordings, model=model)
        return ModelSpec(manifest, artifact, behaviour)

    def _manifest(self, table: OnnxTable, artifact: bytes) -> Manifest:
        name, _, version = table.name.partition("@")
        try:
            draft, baseline = self._draft(table.manifest), self._baseline(table)
            return package(artifact, name, version, draft, baseline, run=run_here)
        except ControllerError as error:
            raise ScenarioError(f"{table.name} ({table.file}): {error}") from error

    def _draft(self, path: Path | None) -> ManifestDraft:
        """Without a file: the data's own preprocessing and labels."""
        if path is not None:
            return load_draft(self._loaded.resolve(path).read_text(encoding="utf-8"), str(path))
        dataset = self._dataset
        raw = dataset.preprocessing.kind == "none"
        return ManifestDraft(
            preprocessing=dataset.preprocessing,
            labels=dataset.labels,
            features=dataset.channels if raw else None,
        )

    def _baseline(self, table: OnnxTable) -> pa.Table | None:
        """Without a file: the data's own. A bad version may not answer it, and gets none."""
        if table.baseline is not None:
            path = self._loaded.resolve(table.baseline)
            return read_baseline(path.read_bytes(), str(path))
        if table.bad:
            return None
        return windows_table(self._dataset, self._dataset.baseline).drop_columns(["reference"])


def _dataset(loaded: LoadedVirtual) -> Dataset:
    data = loaded.scenario.data
    if isinstance(data, WatchData):
        return load_watch(data)
    if isinstance(data, TabularData):
        return load_tabular(data, loaded.resolve)
    assert isinstance(data, MachinesData)
    return generate(data)
