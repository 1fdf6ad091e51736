"""The Executor port: a local process, and the adapters of virtual worlds over it."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from edgeloop_controller.training.dataset import write_training_input
from edgeloop_controller.training.executor import Ending, Executor, LocalExecutor, TrainingJob
from edgeloop_simulators.virtual.controller.executor import VirtualExecutor
from edgeloop_simulators.virtual.models.training import FunctionExecutor, RememberingExecutor

HEAD = "import pathlib, sys, time\nout = pathlib.Path(sys.argv[4])\n"
WRITES = '(out / "model.onnx").write_bytes(b"a model")\n'
DRAFT = '(out / "model.toml").write_text("")\n(out / "model.toml").write_text("x = 1")\n'

ADAPTERS: dict[str, Callable[[], Executor]] = {
    "local": LocalExecutor,
    "remembering": lambda: RememberingExecutor(LocalExecutor()),
    "virtual": lambda: VirtualExecutor(LocalExecutor(), 0.2, time.sleep),
    "virtual, remembering": lambda: VirtualExecutor(
        RememberingExecutor(LocalExecutor()), 0.0, time.sleep
    ),
}


@pytest.fixture(params=ADAPTERS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return ADAPTERS[request.param]()


def job(tmp_path: Path, script: str, timeout_s: float = 30.0, run: int = 1) -> TrainingJob:
    path = tmp_path / "train.py"
    path.write_text(HEAD + script)
    directory = tmp_path / f"run-{run}"
    write_training_input(
        directory, (), ["f"], ["a"], run_id=run, policy="p", model="m", slot="main", parent=None,
        inputs={},
    )  # fmt: skip
    return TrainingJob(path, directory, timeout_s, 1 << 32)


def test_what_the_script_wrote(executor: Executor, tmp_path: Path) -> None:
    for run in (1, 2):
        outcome = executor.run(job(tmp_path, WRITES + DRAFT, run=run), Event())
        assert outcome.ending is Ending.SUCCEEDED
        assert outcome.model == tmp_path / f"run-{run}" / "output" / "model.onnx"
        assert outcome.model.read_bytes() == b"a model"
        assert outcome.draft is not None
        assert outcome.draft.read_text() == "x = 1"
        assert outcome.baseline is None
        assert outcome.duration_s >= 0.0


def test_a_script_that_fails_says_why(executor: Executor, tmp_path: Path) -> None:
    outcome = executor.run(job(tmp_path, 'raise RuntimeError("too few rows")\n'), Event())
    assert outcome.ending is Ending.FAILED
    assert "too few rows" in outcome.message


def test_a_script_that_writes_nothing(executor: Executor, tmp_path: Path) -> None:
    assert executor.run(job(tmp_path, "pass\n"), Event()).ending is Ending.NO_MODEL


def test_what_an_earlier_attempt_left_does_not_count(executor: Executor, tmp_path: Path) -> None:
    left = tmp_path / "run-1" / "output"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"old")
    assert executor.run(job(tmp_path, "pass\n"), Event()).ending is Ending.NO_MODEL


def test_one_that_takes_too_long_is_ended(executor: Executor, tmp_path: Path) -> None:
    slow = job(tmp_path, "time.sleep(60)\n", timeout_s=0.5)
    if isinstance(executor, VirtualExecutor):
        executor = VirtualExecutor(LocalExecutor(), 60.0, lambda _: None)
    outcome = executor.run(slow, Event())
    assert outcome.ending is Ending.TIMED_OUT
    assert "raise timeout_s" in outcome.message


def test_cancelled_it_ends(executor: Executor, tmp_path: Path) -> None:
    cancelled = Event()
    cancelled.set()
    outcome = executor.run(job(tmp_path, "time.sleep(60)\n"), cancelled)
    assert outcome.ending is Ending.CANCELLED


def test_a_script_that_is_not_there(executor: Executor, tmp_path: Path) -> None:
    there = job(tmp_path, WRITES)
    there.script.unlink()
    assert executor.run(there, Event()).ending is Ending.NOT_STARTED


def test_virtual_time_passes_before_anything_is_trained(tmp_path: Path) -> None:
    slept: list[float] = []
    outcome = VirtualExecutor(LocalExecutor(), 150.0, slept.append).run(
        job(tmp_path, WRITES, timeout_s=600.0), Event()
    )
    assert (sum(slept), outcome.duration_s) == (150.0, 150.0)


def test_the_same_input_is_trained_once(tmp_path: Path) -> None:
    calls = tmp_path / "calls.txt"
    script = WRITES + f'open({str(calls)!r}, "a").write("x")\n'
    executor = RememberingExecutor(LocalExecutor())
    executor.run(job(tmp_path, script), Event())
    executor.run(job(tmp_path, script), Event())
    assert calls.read_text() == "x"
    executor.run(job(tmp_path, script + "# changed\n"), Event())
    assert calls.read_text() == "xx"


def test_a_function_trains_as_a_script_does(tmp_path: Path) -> None:
    seen = []

    def train(given, output) -> None:
        seen.append((given.model, given.labels))
        (output / "model.onnx").write_bytes(b"a model")

    outcome = FunctionExecutor(train).run(job(tmp_path, ""), Event())
    assert outcome.model is not None
    assert outcome.model.read_bytes() == b"a model"
    assert seen == [("m", ("a",))]
    failing = FunctionExecutor(lambda given, output: 1 / 0).run(job(tmp_path, ""), Event())
    assert (failing.ending, "division" in failing.message) == (Ending.FAILED, True)
