"""Memory and start time of the device's two processes, against their main import alone."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil

from edgeloop_simulators.bench.loop import installed_agent
from edgeloop_simulators.bench.model import BenchModel
from edgeloop_simulators.bench.runners import live_runner
from edgeloop_simulators.bench.table import Row

ROUNDS = 3
MB = 1e6

PAHO_ALONE = "import paho.mqtt.client"
ONNX_ALONE = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(open({path!r}, "rb").read(), options)
"""


def footprint_rows(model: BenchModel, directory: Path) -> list[Row]:
    _, model_path = model.write(directory)
    paho = _alone(PAHO_ALONE)
    onnx = _alone(ONNX_ALONE.format(path=str(model_path)))
    with installed_agent(model, directory / "agent") as agent:
        supervisor = psutil.Process(agent.pid)
        supervisor_mb = supervisor.memory_info().rss / MB
        runner_mb = psutil.Process(agent.runner_pid).memory_info().rss / MB
    starts = []
    for number in range(ROUNDS):
        at = directory / f"runner-{number}"
        at.mkdir()
        with live_runner(model, at, rate_hz=1.0) as runner:
            starts.append(runner.started_s * 1e3)
    session = "onnxruntime + session"
    return [
        Row("supervisor, resident", supervisor_mb, paho[0], "MB", "import paho.mqtt"),
        Row("supervisor, start", agent.hello_s * 1e3, paho[1], "ms", "import paho.mqtt", 0),
        Row("runner, resident", runner_mb, onnx[0], "MB", session),
        Row("runner, start to self-tested", median(starts), onnx[1], "ms", session, 0),
    ]


def _alone(code: str) -> tuple[float, float]:
    """(MB resident, ms until it stands) of a Python that runs `code` and waits; medians."""
    sizes, times = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", f"{code}\nimport sys\nprint(flush=True)\nsys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            times.append((time.perf_counter() - began) * 1e3)
            sizes.append(psutil.Process(process.pid).memory_info().rss / MB)
            process.stdin.close()
    return median(sizes), median(times)
