"""A version that answers recorded examples by real inference: a behaviour made of answer tables.

A table is made when a device first sees its scene (stream, phase, broken sensors), by the agent's
own runner code: the manifest's preprocessing, onnxruntime with one thread, the scoring. From then
on an answer is a draw of rows and a count of them.

Invariants: as every behaviour's (`spec.behaviour`); which rows are drawn depends on the luck
alone, so that two versions on one device, and the one in shadow, meet the same examples. Windows
hold whole numbers only; they are the same on every machine unless an example's feature or score
lies within the last bits of a bin's edge or a tie. Samples hold the features themselves, whose last
bits may differ between processors and versions of numpy and onnxruntime: a trace of a recorded
world is promised to be the same for one machine and one set of versions.
"""

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.inference import Inference
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.self_test import self_test
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.models.answer_table import AnswerTable, Rows, make_table
from edgeloop_simulators.virtual.models.faults import Broken
from edgeloop_simulators.virtual.models.recordings import Recordings, Scene, as_seen
from edgeloop_simulators.virtual.spec.behaviour import (
    Answered,
    Answers,
    Behaviour,
    Surroundings,
    added,
)

LATENCY_US: Final = 300.0
MEMORY_BYTES: Final = 64 << 20
LOAD_S: Final = 1.0


class RecordedModel:
    """A Behaviour. What it costs is told, not measured: no measured latency comes twice."""

    def __init__(
        self,
        manifest: Manifest,
        artifact: bytes,
        recordings: Recordings,
        *,
        latency_us: float = LATENCY_US,
        memory_bytes: int = MEMORY_BYTES,
        load_s: float = LOAD_S,
        model: Model | None = None,
    ) -> None:
        """`model`: what answers in place of the artifact."""
        self.manifest = manifest
        self.manifest_digest = manifest.digest()
        self.latency_us = latency_us
        self.memory_bytes = memory_bytes
        self.load_s = load_s
        self._recordings = recordings
        self._problem = ""
        self._tables: dict[Scene, AnswerTable] = {}
        self._disagreements: dict[tuple[str, Scene], NDArray[np.bool_]] = {}
        try:
            model = model or _load(manifest, artifact)
            self._inference = Inference(model, None)
            self._problem = self_test(model) or ""
        except ModelLoadError as error:
            self._problem = str(error)

    def self_test_problem(self, architecture: str) -> str:  # noqa: ARG002 - the port's
        return self._problem

    def crashes_after(self, architecture: str) -> int | None:  # noqa: ARG002 - the port's
        return None

    def hangs_after(self, architecture: str) -> int | None:  # noqa: ARG002 - the port's
        return None

    def answer(
        self,
        seen: Surroundings,
        at_s: float,
        count: int,
        shadow: Behaviour | None,
        luck: Luck,
    ) -> Answers:
        """Raises DatasetError for surroundings that were not recorded."""
        before, scene, share = scenes(seen, at_s)
        late = count if share >= 1.0 else sum(luck.random() < share for _ in range(count))
        answers = self._count(scene, late, shadow, luck)
        if late == count:
            return answers
        return added(answers, self._count(before, count - late, shadow, luck))

    def sample(
        self, seen: Surroundings, at_s: float, shadow: Behaviour | None, luck: Luck
    ) -> Answered | None:
        before, scene, share = scenes(seen, at_s)
        if share < 1.0 and luck.random() >= share:
            scene = before
        table = self.table(scene)
        (row,) = draw(len(table), 1, luck)
        if not table.answered[row]:
            return None
        return Answered(
            reference=table.references[row],
            features=tuple(table.features[row].tolist()),
            prediction=int(table.predictions[row]),
            confidence=float(table.confidences[row]),
            shadow_prediction=self._in_shadow(shadow, scene, int(row)),
        )

    def table(self, scene: Scene) -> AnswerTable:
        """Made at the first call. Raises DatasetError for a scene that was not recorded."""
        table = self._tables.get(scene)
        if table is None:
            windows = self._recordings.windows(scene)
            values = [as_seen(window.values, scene, self.manifest) for window in windows]
            table = make_table(windows, values, self._inference, self.manifest)
            self._tables[scene] = table
        return table

    def _count(self, scene: Scene, count: int, shadow: Behaviour | None, luck: Luck) -> Answers:
        table = self.table(scene)
        rows = draw(len(table), count, luck)
        other = _recorded(shadow)
        if other is None:
            return table.count(rows)
        key = (other.manifest_digest, scene)
        disagrees = self._disagreements.get(key)
        if disagrees is None:
            disagrees = table.disagrees_with(
                other.table(scene), self.manifest.labels, other.manifest.labels
            )
            self._disagreements[key] = disagrees
        return table.count(rows, disagrees)

    def _in_shadow(self, shadow: Behaviour | None, scene: Scene, row: int) -> int | None:
        other = _recorded(shadow)
        if other is None or not other.table(scene).answered[row]:
            return None
        name = other.manifest.labels[other.table(scene).predictions[row]]
        return self.manifest.labels.index(name) if name in self.manifest.labels else None


def _recorded(behaviour: Behaviour | None) -> RecordedModel | None:
    """What is recorded behind a fault; None for any other behaviour."""
    while isinstance(behaviour, Broken):
        behaviour = behaviour.inner
    return behaviour if isinstance(behaviour, RecordedModel) else None


def scenes(seen: Surroundings, at_s: float) -> tuple[Scene, Scene, float]:
    """The scene that goes, the one that comes, and the latter's share of the examples."""
    dead, swapped = seen.broken_sensor, seen.swapped_sensors
    broken = (
        dead[1] if dead is not None and at_s >= dead[0] else None,
        swapped[1:] if swapped is not None and at_s >= swapped[0] else (),
    )
    before, phase, share = seen.mixture(at_s)
    return Scene(seen.stream, before, *broken), Scene(seen.stream, phase, *broken), share


def draw(places: int, count: int, luck: Luck) -> Rows:
    """`count` numbers below `places`, with repetition, by whole-number arithmetic alone."""
    bits = luck.getrandbits(32 * count) if count else 0
    drawn = np.frombuffer(bits.to_bytes(4 * count, "little"), dtype="<u4").astype(np.uint64)
    return (drawn * np.uint64(places) >> np.uint64(32)).astype(np.intp)


def _load(manifest: Manifest, artifact: bytes) -> Model:
    """By way of files, as the runner is given them. Raises ModelLoadError."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-recorded-") as name:
        manifest_path, model_path = Path(name, "manifest.json"), Path(name, "model.onnx")
        manifest_path.write_bytes(manifest.canonical())
        model_path.write_bytes(artifact)
        return Model(
            ModelFiles(
                version=manifest.ref(),
                manifest_path=str(manifest_path),
                model_path=str(model_path),
            )
        )
