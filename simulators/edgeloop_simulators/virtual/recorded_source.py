"""Recordings and ONNX files as the source of a scenario: real inference on real data.

Invariants: the devices' streams are the dataset's portions, in its order; a version is packaged as
publishing packages it.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.package import load_draft, package, read_baseline
from edgeloop_protocol.manifest import Manifest, ManifestDraft
from edgeloop_simulators.datasets.tabular import load_tabular
from edgeloop_simulators.datasets.watch import load_watch
from edgeloop_simulators.datasets.windows import Dataset
from edgeloop_simulators.errors import ScenarioError
from edgeloop_simulators.scenario import TabularData, WatchData
from edgeloop_simulators.virtual.recorded import RecordedModel
from edgeloop_simulators.virtual.recordings import recordings_of
from edgeloop_simulators.virtual.scenario_file import OnnxTable, SyntheticTable
from edgeloop_simulators.virtual.scenario_load import LoadedVirtual
from edgeloop_simulators.virtual.spec import ModelSpec


class RecordedSource:
    """Raises DatasetError when the recordings cannot be used."""

    def __init__(self, data: WatchData | TabularData, loaded: LoadedVirtual) -> None:
        self.dataset = _load(data, loaded)
        self._loaded = loaded
        self._recordings = recordings_of(self.dataset)

    def streams(self) -> Sequence[str]:
        return [portion.device_id for portion in self.dataset.portions]

    def model(self, table: SyntheticTable | OnnxTable) -> ModelSpec:
        """Raises ScenarioError when the file is no model that could be published."""
        assert isinstance(table, OnnxTable)  # scenario_references refuses the other
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

    def _manifest(self, table: OnnxTable, artifact: bytes) -> Manifest:
        name, _, version = table.name.partition("@")
        try:
            draft, baseline = self._draft(table.manifest), self._baseline(table.baseline)
            return package(artifact, name, version, draft, baseline)
        except PackagingError as error:
            raise ScenarioError(f"{table.name} ({table.file}): {error}") from error

    def _draft(self, path: Path | None) -> ManifestDraft:
        """Without a file: the data's own preprocessing and labels."""
        if path is not None:
            return load_draft(self._loaded.resolve(path).read_text(encoding="utf-8"), str(path))
        dataset = self.dataset
        raw = dataset.preprocessing.kind == "none"
        return ManifestDraft(
            preprocessing=dataset.preprocessing,
            labels=dataset.labels,
            features=dataset.channels if raw else None,
        )

    def _baseline(self, path: Path | None) -> pa.Table | None:
        if path is None:
            return None
        return read_baseline(self._loaded.resolve(path).read_bytes(), str(path))


def _load(data: WatchData | TabularData, loaded: LoadedVirtual) -> Dataset:
    if isinstance(data, WatchData):
        return load_watch(data)
    return load_tabular(data, loaded.resolve)
