"""Memory and start time of the device's two processes, against their main import alone.

Invariants: what is compared stands at the same time, so that pages which both map count alike; the
runner serves, its floor has only loaded the same model with the same options.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from edgeloop_simulators.bench.loop import installed_agent
from edgeloop_simulators.bench.model import BenchModel
from edgeloop_simulators.bench.runners import live_runner
from edgeloop_simulators.bench.table import Row
from edgeloop_simulators.weighing import Memory, memory_of

ROUNDS: Final = 3
KB_PER_MB: Final = 1e3
SUPERVISOR_MB_MAX: Final = 45.0
RUNNER_ABOVE_MB_MAX: Final = 12.0
"""The goals."""

PAHO_ALONE: Final = "import paho.mqtt.client"
ONNX_ALONE: Final = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
session = onnxruntime.InferenceSession(
    open({path!r}, "rb").read(), options, providers=["CPUExecutionProvider"]
)
"""
_WAITS: Final = "\nimport sys\nprint(flush=True)\nsys.stdin.read()"
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""As a runner has it."""


def footprint_rows(model: BenchModel, directory: Path) -> list[Row]:
    _, model_path = model.write(directory)
    onnx_alone = ONNX_ALONE.format(path=str(model_path))
    with (
        _alone(PAHO_ALONE) as paho_pid,
        _alone(onnx_alone) as onnx_pid,
        installed_agent(model, directory / "agent") as agent,
    ):
        supervisor, paho = memory_of(agent.pid), memory_of(paho_pid)
        runner, onnx = memory_of(agent.runner_pid), memory_of(onnx_pid)
    starts = []
    for number in range(ROUNDS):
        at = directory / f"runner-{number}"
        at.mkdir()
        with live_runner(model, at, rate_hz=1.0) as live:
            starts.append(live.started_s * 1e3)
    session = "onnxruntime + session"
    above = _mb(runner.rss - onnx.rss)
    return [
        *_memory_rows("supervisor", supervisor, paho, "import paho.mqtt"),
        Row("supervisor, of its goal", _mb(supervisor.rss), SUPERVISOR_MB_MAX, "MB", "at most"),
        *_memory_rows("runner", runner, onnx, session),
        Row("runner above that, of its goal", above, RUNNER_ABOVE_MB_MAX, "MB", "at most"),
        Row(
            "supervisor, start",
            agent.hello_s * 1e3,
            _start_ms(PAHO_ALONE),
            "ms",
            "import paho.mqtt",
            0,
        ),
        Row(
            "runner, start to self-tested", median(starts), _start_ms(onnx_alone), "ms", session, 0
        ),
    ]


def _memory_rows(what: str, ours: Memory, floor: Memory, floor_is: str) -> list[Row]:
    return [
        Row(f"{what}, {kind}", _mb(of_ours), _mb(of_floor), "MB", floor_is)
        for kind, of_ours, of_floor in (
            ("resident", ours.rss, floor.rss),
            ("proportional", ours.pss, floor.pss),
            ("private dirty", ours.private_dirty, floor.private_dirty),
        )
    ]


def _mb(kilobytes: float) -> float:
    return kilobytes / KB_PER_MB


@contextmanager
def _alone(code: str) -> Iterator[int]:
    """The pid of a Python that has run `code`, and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", code + _WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ONE_THREAD},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def _start_ms(code: str) -> float:
    """Until it stands; the median."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with _alone(code):
            times.append((time.perf_counter() - began) * 1e3)
    return median(times)
