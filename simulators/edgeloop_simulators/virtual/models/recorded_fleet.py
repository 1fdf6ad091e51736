"""From a dataset and a training script to what a virtual world of recorded devices is made of.

`watch_fleet`, `table_fleet` and `machine_fleet` are what a scenario's data comes down to: the
first version, trained by the script as every later one will be; bad variants of it; the streams
that devices can be given; and the training that its retraining goes on with.

Invariants: the script runs once here, in real time; everything is frozen afterwards, and may be
shared by any number of worlds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from edgeloop_controller.core.retraining import Policy
from edgeloop_controller.packaging.package import load_draft, package, read_baseline
from edgeloop_controller.training.executor import Executor
from edgeloop_protocol.manifest import Manifest, ManifestDraft
from edgeloop_simulators.bad_models import blind_above, permuted_labels, yields_nan
from edgeloop_simulators.datasets.generator import GeneratorData, generate
from edgeloop_simulators.datasets.tabular import load_tabular
from edgeloop_simulators.datasets.watch import load_watch
from edgeloop_simulators.datasets.windows import Dataset
from edgeloop_simulators.first_version import TrainedFiles, train_first, write_inputs
from edgeloop_simulators.scenario import Annotator, TabularData, WatchData, load_scenario
from edgeloop_simulators.virtual.models.recorded import RecordedModel
from edgeloop_simulators.virtual.models.recordings import Recordings, recordings_of
from edgeloop_simulators.virtual.models.training import RecordedTraining, run_here
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec
from edgeloop_simulators.virtual.spec.world import ModelSpec

SLOT: Final = "main"
SCRIPT_TIMEOUT_S: Final = 300.0
BLIND_SHARE: Final = 0.4
"""Of the training data, on which the blind version answers one label whatever it is asked."""
FIRST_VERSION: Final = 1

Bad = Literal["permuted", "nan", "blind"]


@dataclass(frozen=True)
class RecordedFleet:
    """`models`: the first version, then the bad ones in the order asked for. `streams`: names for
    Surroundings.stream, one for each portion of the dataset; as many devices as one likes may
    share one. Their phases are `before` and `after`."""

    models: tuple[ModelSpec, ...]
    streams: tuple[str, ...]
    recordings: Recordings
    dataset: Dataset
    script: Path
    inputs: Mapping[str, str]

    def retraining(
        self,
        policy: Mapping[str, Any],
        *,
        annotator: Annotator | None = None,
        duration_s: float = 600.0,
        executor: Executor | None = None,
    ) -> RetrainingSpec:
        """`policy`: keys of the policy file, beside name, model, slot, script and inputs, which
        are set here. Raises pydantic's ValidationError for one that does not fit."""
        given = {
            "name": "when-the-world-moves",
            "model": self.models[0].manifest.name,
            "slot": SLOT,
            "script": str(self.script),
            "inputs": dict(self.inputs),
        }
        return RetrainingSpec(
            policy=Policy.model_validate(given | dict(policy)),
            training=RecordedTraining(self.recordings, executor),
            truth_of=self.recordings.label_of,
            annotator=annotator or Annotator(),
            duration_s=duration_s,
        )


def watch_fleet(
    directory: Path, data: WatchData | None = None, *, bad: Sequence[Bad] = ()
) -> RecordedFleet:
    """The smartwatch recordings, dealt out as in the shipped scenario, and its script."""
    shipped = load_scenario("watch", {})
    plan = shipped.scenario
    dealt = data or plan.data
    assert isinstance(dealt, WatchData)
    script = shipped.resolve(plan.training.script)
    return recorded_fleet(load_watch(dealt), script, plan.training.model, directory, bad=bad)


def table_fleet(
    data: TabularData,
    resolve: Callable[[Path], Path],
    script: Path,
    model: str,
    directory: Path,
    *,
    bad: Sequence[Bad] = (),
) -> RecordedFleet:
    """A user's CSV, Parquet or .npy. Raises DatasetError or FirstVersionError."""
    return recorded_fleet(load_tabular(data, resolve), script, model, directory, bad=bad)


def machine_fleet(
    directory: Path, data: GeneratorData | None = None, *, bad: Sequence[Bad] = ()
) -> RecordedFleet:
    """The generator's machines, by the script that is shipped for them."""
    script = Path(str(files("edgeloop_simulators") / "scenarios" / "machines" / "train.py"))
    dataset = generate(data or GeneratorData())
    return recorded_fleet(dataset, script, "activity", directory, bad=bad)


def recorded_fleet(
    dataset: Dataset,
    script: Path,
    model: str,
    directory: Path,
    *,
    bad: Sequence[Bad] = (),
    executor: Executor | None = None,
) -> RecordedFleet:
    """Train the first version in `directory`, which must stay as long as the fleet is used: later
    runs read their inputs there. Raises FirstVersionError or PackagingError."""
    directory.mkdir(parents=True, exist_ok=True)
    inputs = write_inputs(dataset, directory)
    trained = train_first(
        dataset,
        script.resolve(),
        model,
        inputs,
        directory / "first",
        slot=SLOT,
        timeout_s=SCRIPT_TIMEOUT_S,
        executor=executor,
    )
    recordings = recordings_of(dataset)
    artifact = trained.model.read_bytes()
    first = _package(artifact, model, str(FIRST_VERSION), trained)
    versions = [(first, artifact)]
    for number, kind in enumerate(bad, start=FIRST_VERSION + 1):
        spoilt = _spoil(kind, artifact, first)
        # Without a baseline: a model that gives NaN does not come through packaging with one.
        versions.append((_package(spoilt, model, str(number), trained, baseline=False), spoilt))
    return RecordedFleet(
        models=tuple(
            ModelSpec(manifest, content, RecordedModel(manifest, content, recordings))
            for manifest, content in versions
        ),
        streams=tuple(recordings.streams),
        recordings=recordings,
        dataset=dataset,
        script=script.resolve(),
        inputs=inputs,
    )


def _package(
    model: bytes, name: str, version: str, trained: TrainedFiles, *, baseline: bool = True
) -> Manifest:
    draft, table = ManifestDraft(), None
    if trained.draft is not None:
        draft = load_draft(trained.draft.read_text(encoding="utf-8"), str(trained.draft))
    if baseline and trained.baseline is not None:
        table = read_baseline(trained.baseline.read_bytes(), str(trained.baseline))
    return package(model, name, version, draft, table, run=run_here)


def _spoil(kind: Bad, model: bytes, manifest: Manifest) -> bytes:
    output = manifest.scores_output
    if kind == "permuted":
        return permuted_labels(model, output)
    if kind == "nan":
        return yields_nan(model, output)
    edges = manifest.baseline.features[0].edges if manifest.baseline else (0.0,)
    return blind_above(model, output, edges[int(len(edges) * (1 - BLIND_SHARE))])
