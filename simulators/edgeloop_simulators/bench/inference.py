"""The runner's CPU time per inference, against a loop of nothing but `session.run`."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import psutil

from edgeloop_agent.core.events import RunnerProgressed
from edgeloop_simulators.bench.model import BenchModel
from edgeloop_simulators.bench.runners import live_runner
from edgeloop_simulators.bench.table import Row

ROUNDS = 5
BARE_RUNS = 20_000
FASTER_THAN_POSSIBLE_HZ = 1_000_000.0


def inference_rows(model: BenchModel, directory: Path) -> list[Row]:
    """One run an example, micro-batches of what waits, and one run an example that a challenger is
    shown, each beside a bare run an example. With a challenger it is the champion's time alone."""
    one_by_one, floor = _side_by_side(model, directory / "one", batch=False)
    batched, floor_again = _side_by_side(model, directory / "batch", batch=True)
    challenged, floor_then = _side_by_side(
        model, directory / "challenged", batch=False, challenger_cpu_fraction=0.1
    )
    bare = "bare session.run"
    return [
        Row("CPU per inference", one_by_one, floor, "us", bare),
        Row("CPU per inference, micro-batches", batched, floor_again, "us", bare),
        Row("CPU per inference, with a challenger", challenged, floor_then, "us", bare),
    ]


def _side_by_side(
    model: BenchModel, directory: Path, batch: bool, challenger_cpu_fraction: float | None = None
) -> tuple[float, float]:
    """Our rounds and the floor's take turns, so that a machine's mood falls on both; medians."""
    directory.mkdir()
    ours: list[float] = []
    floor: list[float] = []
    with live_runner(model, directory, FASTER_THAN_POSSIBLE_HZ, batch=batch) as runner:
        process = psutil.Process(runner.pid)
        runner.go()
        if challenger_cpu_fraction is not None:
            runner.next_progress()  # it serves
            runner.challenge(challenger_cpu_fraction)
        runner.next_progress()  # warm
        for _ in range(ROUNDS):
            ours.append(_runner_us(runner.next_progress, process))
            process.suspend()
            floor.append(_bare_us(model))
            process.resume()
            runner.next_progress()  # the beat that was due while it was suspended
    return median(ours), median(floor)


def _runner_us(next_progress: Callable[[], RunnerProgressed], process: psutil.Process) -> float:
    first, began = next_progress().progress.examples, _cpu_s(process)
    second, ended = next_progress().progress.examples, _cpu_s(process)
    return (ended - began) / (second - first) * 1e6


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _bare_us(model: BenchModel) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])
    example = np.ascontiguousarray(model.examples[:1])
    outputs = [model.manifest.scores_output]
    began = time.process_time()
    for _ in range(BARE_RUNS):
        session.run(outputs, {"x": example})
    return (time.process_time() - began) / BARE_RUNS * 1e6
