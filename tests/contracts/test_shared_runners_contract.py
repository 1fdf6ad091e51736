"""More of the RunnerHost port's contract, for hosts that truly infer: a device's own runner
processes, and one worker for a fleet, over the same model and a stream of examples that never ends.
"""

import asyncio
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.ports import Disk, RunnerSaid
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.model_store import ModelStore, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_controller.packaging.package import package
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.manifest import Artifact, Manifest, ManifestDraft
from edgeloop_protocol.messages import VersionRef, WindowSummary
from edgeloop_simulators.bench.model import FEATURES, LABELS, mlp
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.runners import RunnerTerms, SharedRunners
from edgeloop_simulators.twins.disk import MemoryDisk

pytestmark = pytest.mark.e2e

PATIENCE_S = 30.0
RATE_HZ = 20.0
WINDOW_S = 1.0


class Rig:
    """A host over a disk; what its runners say is kept in order."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.store = ModelStore(disk)
        self.words: queue.Queue[Any] = queue.Queue()
        self.said: list[Any] = []

    def put(self, manifest: Manifest, model: bytes) -> VersionRef:
        digest = manifest.digest()
        self.store.put_manifest(digest, manifest.canonical())
        write_durably(self.disk, model_path(digest), model)
        return manifest.ref()

    def ask(self, call: Callable[[], Any]) -> Any:
        return call()

    def start(self, version: VersionRef, shadow: VersionRef | None = None, number: int = 1) -> None:
        self.ask(lambda: self.host.start(StartRunner("main", number, version, shadow)))

    def go(self, number: int = 1) -> None:
        self.ask(lambda: self.host.go("main", number))

    def stop(self, kill: bool = False, number: int = 1) -> None:
        self.ask(lambda: self.host.stop("main", number, kill))

    def hear(self, kind: type, where: Callable[[Any], bool] = lambda word: True) -> Any:
        while True:
            word = self.words.get(timeout=PATIENCE_S)
            self.said.append(word)
            if isinstance(word, kind) and where(word):
                return word

    def windows(self) -> list[WindowSummary]:
        bodies = (word.body for word in self.said if isinstance(word, RunnerSaid))
        return [body for body in bodies if isinstance(body, WindowSummary)]


class ProcessRig(Rig):
    def __init__(self, directory: Path, examples: Path) -> None:
        disk = OsDisk(directory)
        super().__init__(disk)
        source = {"kind": "replay", "path": str(examples), "rate_hz": RATE_HZ}
        config = AgentConfig.model_validate(
            {
                "device_id": "dev1",
                "state_dir": str(directory),
                "controller_url": "http://127.0.0.1:1",
                "telemetry": {"window_s": WINDOW_S, "sample_fraction": 1.0},
                "slots": {"main": {"source": source}},
            }
        )
        self.host = RunnerProcesses(config, disk, self.words.put)

    def close(self) -> None:
        self.host.stop_all(kill=True)
        while self.host.alive():
            self.hear(RunnerExited)


class LiveRig(Rig):
    def __init__(self, examples: Path) -> None:
        super().__init__(MemoryDisk())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._inference = SharedInference(examples)
        terms = RunnerTerms(RATE_HZ, WINDOW_S, beat_s=1.0, sample_fraction=1.0)
        self._runners = SharedRunners(self._inference, SystemClock(), terms)
        self._running = asyncio.run_coroutine_threadsafe(self._runners.run(), self._loop)
        self.host: Any = self._runners.host("dev1", self.disk, self.words.put)

    def ask(self, call: Callable[[], Any]) -> Any:
        async def on_loop() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._running.cancel()
        asyncio.run_coroutine_threadsafe(self._runners.close(), self._loop).result(PATIENCE_S)
        self._inference.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def made() -> Callable[[str], tuple[Manifest, bytes]]:
    """A version → its manifest and model; versions differ in their weights."""
    names = tuple(f"f{number}" for number in range(FEATURES))
    rows = np.random.default_rng(0).normal(size=(200, FEATURES)).astype(np.float32)
    baseline = pa.table({name: rows[:, column] for column, name in enumerate(names)})
    known: dict[str, tuple[Manifest, bytes]] = {}

    def make(version: str) -> tuple[Manifest, bytes]:
        if version not in known:
            model = mlp(np.random.default_rng(int(version)))
            draft = ManifestDraft(features=names, labels=LABELS)
            known[version] = package(model, "demo", version, draft, baseline), model
        return known[version]

    return make


@pytest.fixture(params=["processes", "shared"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    examples = tmp_path / "examples.npy"
    rows = np.random.default_rng(1).normal(size=(100, FEATURES)).astype(np.float32)
    np.save(examples, rows)
    if request.param == "processes":
        (tmp_path / "state").mkdir()
        one: Any = ProcessRig(tmp_path / "state", examples)
    else:
        one = LiveRig(examples)
    yield one
    one.close()


def test_it_serves_only_after_go_and_counts_what_it_answered(rig: Any, made: Any) -> None:
    version = rig.put(*made("1"))
    rig.start(version)
    assert rig.hear(RunnerSelfTested).passed
    assert not any(isinstance(word, RunnerServing) for word in rig.said)
    rig.go()
    rig.hear(RunnerServing)
    rig.hear(RunnerProgressed, lambda word: word.progress.examples > 0)
    rig.hear(RunnerSaid, lambda word: isinstance(word.body, WindowSummary))
    rig.stop()
    assert rig.hear(RunnerExited).detail == "exit status 0"
    progress = [w.progress for w in rig.said if isinstance(w, RunnerProgressed)]
    assert (progress[-1].errors, progress[-1].nonfinite) == (0, 0)
    assert progress[-1].latency_p95_us > 0
    windows = rig.windows()
    assert sum(window.count for window in windows) == progress[-1].examples
    for window in windows:
        assert window.version == version
        assert sum(window.predictions) == window.count == sum(window.confidence)
        assert [sum(counts) for counts in window.features] == [window.count] * FEATURES
    samples = [w.body for w in rig.said if isinstance(w, RunnerSaid) and w.body.kind == "sample"]
    assert len(samples) >= progress[-1].examples * 0.5, "sample_fraction is 1, with a cap"
    assert len(samples[0].features) == FEATURES


def test_one_exit_follows_each_start_and_nothing_after_it(rig: Any, made: Any) -> None:
    version = rig.put(*made("1"))
    rig.start(version)
    rig.hear(RunnerSelfTested)
    rig.go()
    rig.hear(RunnerServing)
    rig.stop()
    rig.stop()
    rig.hear(RunnerExited)
    assert rig.ask(rig.host.alive) == 0
    rig.stop(kill=True)
    rig.go()
    with suppress(queue.Empty):
        while True:
            rig.said.append(rig.words.get(timeout=1.5))
    assert isinstance(rig.said[-1], RunnerExited)
    assert sum(isinstance(word, RunnerExited) for word in rig.said) == 1


def test_a_stop_before_go_ends_it(rig: Any, made: Any) -> None:
    rig.start(rig.put(*made("1")))
    rig.stop()
    assert rig.hear(RunnerExited).detail == "exit status 0"


def test_the_shadow_answers_the_same_examples_until_it_is_dropped(rig: Any, made: Any) -> None:
    version, shadow = rig.put(*made("2")), rig.put(*made("1"))
    rig.start(version, shadow)
    rig.hear(RunnerSelfTested)
    rig.go()
    said = rig.hear(RunnerSaid, lambda w: isinstance(w.body, WindowSummary) and w.body.count)
    compared = said.body.comparison
    assert compared.shadow == shadow
    assert compared.count == said.body.count
    assert 0 < compared.disagreements < compared.count, "unlike weights, not always unlike answers"
    rig.ask(lambda: rig.host.drop_shadow("main", 1))
    rig.hear(RunnerSaid, lambda w: isinstance(w.body, WindowSummary))
    said = rig.hear(RunnerSaid, lambda w: isinstance(w.body, WindowSummary) and w.body.count)
    assert said.body.comparison is None


def test_what_cannot_be_loaded_is_said_before_the_end(rig: Any, made: Any) -> None:
    manifest, _ = made("1")
    bad = b"not a model"
    digest = hashlib.sha256(bad).hexdigest()
    artifact = Artifact.model_validate(
        manifest.artifact.model_dump() | {"digest": digest, "size_bytes": len(bad)}
    )
    rig.start(rig.put(manifest.model_copy(update={"artifact": artifact}), bad))
    tested = rig.hear(RunnerSelfTested)
    assert not tested.passed
    assert "onnxruntime cannot load it" in tested.detail
    assert rig.hear(RunnerExited).detail.startswith("exit status 1")


def test_a_damaged_file_is_refused_even_when_another_device_runs_it(rig: Any, made: Any) -> None:
    manifest, model = made("1")
    version = rig.put(manifest, model)
    rig.start(version)
    assert rig.hear(RunnerSelfTested).passed
    write_durably(rig.disk, model_path(version.manifest_digest), model[:-1] + b"?")
    rig.start(version, number=2)
    tested = rig.hear(RunnerSelfTested, lambda word: word.runner == 2)
    assert not tested.passed
    assert "damaged" in tested.detail
