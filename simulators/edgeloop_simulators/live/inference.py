"""Inference for a whole fleet, in one worker process: one onnxruntime session a version, run on all
devices' examples of a moment at once.

Invariants: a version is loaded and self-tested by the runner's own code, from bytes whose digests
that code checks, in an empty working directory; every example that is counted went through its
session; the worker holds no state of a device, so that what it answers can be added up anywhere.
"""

import asyncio
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.memory import resident_bytes
from edgeloop_agent.runner.model import Model
from edgeloop_agent.runner.runtime_onnx import OnnxRuntime
from edgeloop_agent.runner.self_test import self_test
from edgeloop_agent.runner_protocol import ModelFiles
from edgeloop_protocol.manifest import Binned, Manifest
from edgeloop_protocol.messages import RuntimeInfo, VersionRef
from edgeloop_protocol.preprocessing import Floats
from edgeloop_protocol.scoring import answers

POOL_EXAMPLES: Final = 4096
"""Distinct examples that a fleet is fed from; each device draws its own from them."""
SEED: Final = 1
_PR_SET_PDEATHSIG: Final = 1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one runner's counts lie in a row: predictions, confidence bins, each feature's bins."""

    labels: int
    confidence_bins: int
    feature_bins: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.labels + self.confidence_bins + sum(self.feature_bins)


@dataclass(frozen=True, slots=True)
class Loaded:
    """`load_problem` and `test_problem` are what the runner would say; empty: all is well."""

    layout: Layout = Layout(0, 0, ())
    artifact_digest: str = ""
    load_problem: str = ""
    test_problem: str = ""
    memory_bytes: int = 0
    """The worker's resident size."""


@dataclass(frozen=True, slots=True)
class Question:
    """`runners` devices answer `examples` each; of all examples `sample_fraction` come back."""

    version: str
    shadow: str | None
    runners: int
    examples: int
    sample_fraction: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """`runner` is an index into the question's runners."""

    runner: int
    reference: str
    features: tuple[float, ...]
    prediction: int
    confidence: float
    shadow_prediction: int | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows are runners. `problem`: the model answered none of the examples.

    `latency_us` is of one example within the batch: what the shared session took, divided.
    """

    counts: Ints
    nonfinite: Ints
    compared: Ints
    disagreed: Ints
    latency_us: float
    shadow_latency_us: float | None = None
    samples: tuple[Sampled, ...] = ()
    problem: str = ""


class SharedInference:
    """The loop's end of the worker. `load` a version before asking for it."""

    def __init__(self, examples: Path | None = None) -> None:
        self._examples = examples
        self._pool = self._new_pool()
        self._loading: dict[str, asyncio.Task[Loaded]] = {}

    async def runtime(self) -> RuntimeInfo:
        """What the devices say that they run; starts the worker."""
        found: RuntimeInfo = await self._ask(_runtime)
        return found

    def loaded(self, version: VersionRef) -> Loaded | None:
        """What `load` gave, if it is done and the version runs."""
        task = self._loading.get(version.manifest_digest)
        return None if task is None or not task.done() or _failed(task) else task.result()

    async def load(self, version: VersionRef, manifest: bytes, model: bytes) -> Loaded:
        """Once a version, however many devices ask; a version that fails may be tried again."""
        digest = version.manifest_digest
        task = self._loading.get(digest)
        if task is None or (task.done() and _failed(task)):
            task = asyncio.get_running_loop().create_task(
                self._ask(_load, version, manifest, model)
            )
            self._loading[digest] = task
        return await asyncio.shield(task)

    async def answer(self, question: Question) -> Answers:
        answers: Answers = await self._ask(_answer, question)
        return answers

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _ask(self, work: Any, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, work, *arguments)
        except BrokenProcessPool as error:
            raise WorkerDiedError("the inference worker died: a model ended its process") from error

    def restart(self) -> None:
        """After WorkerDiedError; all versions are loaded anew."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loading.clear()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._examples,),
        )


class WorkerDiedError(Exception):
    """All sessions are gone with it."""


def _failed(task: "asyncio.Task[Loaded]") -> bool:
    return task.cancelled() or task.exception() is not None or bool(task.result().load_problem)


# ---- inside the worker --------------------------------------------------------------------------


@dataclass(slots=True)
class _Version:
    model: Model
    layout: Layout
    pool: Floats
    """(examples, features): what devices are fed."""
    places: Ints
    """(examples, features): where in a row of counts each value is counted."""
    confidence_edges: NDArray[np.float64]


@dataclass(slots=True)
class _Worker:
    values: Floats | None
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))
    versions: dict[str, _Version] = field(default_factory=dict)


_worker: _Worker


def _begin(examples: Path | None) -> None:
    global _worker
    os.environ["OMP_NUM_THREADS"] = "1"
    values = None if examples is None else np.load(examples, allow_pickle=False)
    _worker = _Worker(None if values is None else np.asarray(values, dtype=np.float32))


def _runtime() -> RuntimeInfo:
    return OnnxRuntime().probe()


def _load(version: VersionRef, manifest: bytes, model: bytes) -> Loaded:
    with tempfile.TemporaryDirectory(prefix="edgeloop-live-") as made:
        paths = Path(made) / "manifest.json", Path(made) / "model.onnx"
        paths[0].write_bytes(manifest)
        paths[1].write_bytes(model)
        empty = Path(made) / "empty"
        empty.mkdir()
        os.chdir(empty)  # so that no external-data name of a model finds a file
        try:
            loaded = Model(
                ModelFiles(version=version, manifest_path=str(paths[0]), model_path=str(paths[1]))
            )
        except ModelLoadError as error:
            return Loaded(load_problem=str(error))
        finally:
            os.chdir("/")
    made_of = _version(loaded)
    _worker.versions[version.manifest_digest] = made_of
    digest = loaded.manifest.artifact.digest
    problem = self_test(loaded) or ""
    return Loaded(made_of.layout, digest, test_problem=problem, memory_bytes=resident_bytes())


def _version(model: Model) -> _Version:
    manifest = model.manifest
    baseline = manifest.baseline
    features = baseline.features if baseline else ()
    layout = Layout(
        labels=len(manifest.labels),
        confidence_bins=len(baseline.confidence.shares) if baseline else 0,
        feature_bins=tuple(len(one.shares) for one in features),
    )
    pool = _pool(manifest)
    places = np.zeros((len(pool), len(features)), dtype=np.int64)
    offset = layout.labels + layout.confidence_bins
    for column, binned in enumerate(features):
        places[:, column] = offset + np.searchsorted(binned.edges, pool[:, column], side="right")
        offset += len(binned.shares)
    edges = np.asarray(baseline.confidence.edges if baseline else (), dtype=np.float64)
    return _Version(model, layout, pool, places, edges)


def _pool(manifest: Manifest) -> Floats:
    """The user's examples, preprocessed as declared; else drawn from the manifest's baseline."""
    if _worker.values is not None:
        from edgeloop_protocol.preprocessing import features

        return features(manifest.preprocessing, _worker.values)
    random = np.random.default_rng(SEED)
    width = len(manifest.features)
    if manifest.baseline is None:
        return random.normal(size=(POOL_EXAMPLES, width)).astype(np.float32)
    columns = [_drawn(binned, random) for binned in manifest.baseline.features]
    return np.stack(columns, axis=1).astype(np.float32)


def _drawn(binned: Binned, random: np.random.Generator) -> NDArray[Any]:
    """Values with the bins' shares; within a bin evenly, beyond the outer edges just outside."""
    edges = np.asarray(binned.edges, dtype=np.float64)
    if not len(edges):
        return np.asarray(random.normal(size=POOL_EXAMPLES))
    step = (edges[-1] - edges[0]) / max(1, len(edges) - 1) or 1.0
    borders = np.concatenate(([edges[0] - step], edges, [edges[-1] + step]))
    shares = np.asarray(binned.shares, dtype=np.float64)
    bins = random.choice(len(shares), size=POOL_EXAMPLES, p=shares / shares.sum())
    inside = random.random(POOL_EXAMPLES) * (borders[bins + 1] - borders[bins])
    return np.asarray(borders[bins] + inside)


def _answer(question: Question) -> Answers:
    version = _worker.versions[question.version]
    runners, total = question.runners, question.runners * question.examples
    rows = _worker.random.integers(len(version.pool), size=total)
    nothing = np.zeros(runners, dtype=np.int64)
    counts = np.zeros((runners, version.layout.width), dtype=np.int64)
    try:
        scores, latency_us = _timed(version.model, version.pool[rows])
    except (ModelLoadError, ValueError) as error:
        return Answers(counts, nothing, nothing, nothing, 0.0, problem=str(error))
    owner = np.repeat(np.arange(runners), question.examples)
    finite = np.isfinite(scores).all(axis=1)
    nonfinite = np.bincount(owner[~finite], minlength=runners)
    owner, rows = owner[finite], rows[finite]
    labels, confidences = _labelled(scores[finite])
    _count(version, counts, owner, rows, labels, confidences)
    shadow_labels, shadow_us = _in_shadow(question.shadow, version, rows)
    compared = disagreed = nothing
    if shadow_labels is not None:
        compared = np.bincount(owner, minlength=runners)
        disagreed = np.bincount(owner[shadow_labels != labels], minlength=runners)
    chosen = np.flatnonzero(_worker.random.random(len(rows)) < question.sample_fraction)
    samples = tuple(
        Sampled(
            runner=int(owner[at]),
            reference=f"live:{rows[at]}",
            features=tuple(version.pool[rows[at]].tolist()),
            prediction=int(labels[at]),
            confidence=float(confidences[at]),
            shadow_prediction=_index(shadow_labels, at),
        )
        for at in chosen.tolist()
    )
    return Answers(counts, nonfinite, compared, disagreed, latency_us, shadow_us, samples)


def _labelled(scores: NDArray[Any]) -> tuple[Ints, Floats]:
    if not len(scores):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    return answers(scores)


def _timed(model: Model, vectors: Floats) -> tuple[NDArray[Any], float]:
    began = time.perf_counter_ns()
    if model.takes_several:
        scores = model.run(model.prepare(vectors))
    else:  # the model takes one at a time
        scores = np.concatenate([model.run(model.prepare(vector)) for vector in vectors])
    return scores, (time.perf_counter_ns() - began) / 1000.0 / max(1, len(vectors))


def _count(
    version: _Version, counts: Ints, owner: Ints, rows: Ints, labels: Ints, confidences: Floats
) -> None:
    width = version.layout.width
    base = owner * width
    places = [base + labels]
    if version.layout.confidence_bins:
        bins = np.searchsorted(version.confidence_edges, confidences, side="right")
        places.append(base + version.layout.labels + bins)
    if version.layout.feature_bins:
        places.append((base[:, None] + version.places[rows]).ravel())
    counts += np.bincount(np.concatenate(places), minlength=counts.size).reshape(counts.shape)


def _in_shadow(
    shadow: str | None, version: _Version, rows: Ints
) -> tuple[Ints | None, float | None]:
    """Its labels as indices into the answering version's; -1: not among them. Whatever goes wrong
    is the shadow's."""
    known = _worker.versions.get(shadow) if shadow is not None else None
    if known is None or not len(rows):
        return None, None
    try:
        scores, latency_us = _timed(known.model, version.pool[rows])
    except (ModelLoadError, ValueError):
        return None, None
    own = {name: index for index, name in enumerate(version.model.manifest.labels)}
    named = np.asarray([own.get(name, -1) for name in known.model.manifest.labels])
    return named[scores.argmax(axis=1)], latency_us


def _index(labels: Ints | None, at: int) -> int | None:
    return None if labels is None or labels[at] < 0 else int(labels[at])
