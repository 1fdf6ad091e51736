"""A real runner process, started as the supervisor starts it, for the benchmarks."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.events import (
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.shell.model_store import ModelStore, model_path
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_protocol.messages import ShadowBudget, VersionRef
from edgeloop_simulators.bench.model import BenchModel
from edgeloop_simulators.errors import SimulatorError

SLOT = "main"
NUMBER = 1
CHALLENGER = 2
TIMEOUT_S = 30.0

E = TypeVar("E")


@dataclass
class LiveRunner:
    processes: RunnerProcesses
    said: "queue.Queue[object]"
    pid: int
    version: VersionRef
    started_s: float
    """From the start of the process to its passed self-test."""

    def go(self) -> None:
        self.processes.go(SLOT, NUMBER)

    def next_progress(self) -> RunnerProgressed:
        """The answering runner's."""
        while (progress := _wait_for(self.said, RunnerProgressed)).runner != NUMBER:
            pass
        return progress

    def challenge(self, cpu_fraction: float) -> None:
        """The same version in shadow, fed by what this runner answers."""
        budget = ShadowBudget(cpu_fraction=cpu_fraction)
        self.processes.start(StartRunner(SLOT, CHALLENGER, self.version, None, budget=budget))
        _wait_for(self.said, RunnerSelfTested)
        self.processes.mirror(SLOT, NUMBER, CHALLENGER)
        _wait_for(self.said, RunnerServing)


@contextmanager
def live_runner(
    model: BenchModel,
    directory: Path,
    rate_hz: float,
    batch: bool = False,
    source: dict[str, Any] | None = None,
) -> Iterator[LiveRunner]:
    """Self-tested, waiting for `go`; replays the model's examples at `rate_hz`, unless it has a
    `source` of its own."""
    stream = directory / "stream.npy"
    np.save(stream, model.examples)
    config = AgentConfig.model_validate(
        {
            "device_id": "bench",
            "state_dir": directory / "state",
            "controller_url": "http://127.0.0.1:1",
            "slots": {
                SLOT: {
                    "source": source or {"kind": "replay", "path": stream, "rate_hz": rate_hz},
                    "batch": batch,
                }
            },
        }
    )
    config.state_dir.mkdir()
    disk = OsDisk(config.state_dir)
    store = ModelStore(disk)
    digest = model.manifest.digest()
    store.put_manifest(digest, model.manifest.canonical())
    disk.path(model_path(digest)).write_bytes(model.onnx)
    said: queue.Queue[object] = queue.Queue()
    processes = RunnerProcesses(config, disk, said.put)
    began = time.perf_counter()
    processes.start(StartRunner(SLOT, NUMBER, model.manifest.ref(), None))
    try:
        tested = _wait_for(said, RunnerSelfTested)
        started_s = time.perf_counter() - began
        if not tested.passed:
            raise SimulatorError(f"the benchmark's model fails its self-test: {tested.detail}")
        pid = processes.pid(SLOT, NUMBER)
        if pid is None:
            raise SimulatorError("the benchmark's runner ended after its self-test")
        yield LiveRunner(processes, said, pid, model.manifest.ref(), started_s)
    finally:
        processes.stop_all(kill=True)
        while processes.alive():
            time.sleep(0.01)


def _wait_for(said: "queue.Queue[object]", kind: type[E]) -> E:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            item = said.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise SimulatorError(f"no {kind.__name__} after {TIMEOUT_S:.0f} s") from None
        if isinstance(item, kind):
            return item
        if isinstance(item, RunnerExited):
            raise SimulatorError(f"the benchmark's runner ended: {item.detail}")
