"""The executor's contract: whatever a script does, the run ends, is bounded and leaves nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from edgeloop_controller.training.bounded_log import HEAD_MAX_BYTES, TAIL_MAX_BYTES
from edgeloop_controller.training.executor import (
    Ending,
    Executor,
    LocalExecutor,
    Outcome,
    TrainingJob,
)

MARK = "EDGELOOP_TEST_MARK"


class Runs:
    """Runs scripts through an executor, each in a directory of its own."""

    def __init__(self, executor: Executor, root: Path) -> None:
        self.executor = executor
        self.directory = root / "run"
        self.directory.mkdir()
        (self.directory / "input.json").write_text('{"rows": 3}')
        self.script = root / "train.py"
        self._children_before = children()

    def left_behind(self) -> list[psutil.Process]:
        """The processes that were not there before: another test's may well outlive it."""
        return [child for child in children() if child not in self._children_before]

    def job(self, timeout_s: float = 30.0, memory_max_bytes: int = 2 * 1024**3) -> TrainingJob:
        return TrainingJob(self.script, self.directory, timeout_s, memory_max_bytes)

    def write(self, body: str) -> None:
        head = """
            import argparse, json, os, pathlib, subprocess, sys, time
            parser = argparse.ArgumentParser()
            parser.add_argument("--input"); parser.add_argument("--output")
            arguments = parser.parse_args()
            output = pathlib.Path(arguments.output)
        """
        self.script.write_text(textwrap.dedent(head) + textwrap.dedent(body))

    def run(self, body: str, **limits: float) -> Outcome:
        self.write(body)
        return self.executor.run(self.job(**limits), threading.Event())  # type: ignore[arg-type]

    def log(self) -> str:
        return (self.directory / "log.txt").read_text(errors="replace")


@pytest.fixture(params=[LocalExecutor])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Runs:
    return Runs(request.param(), tmp_path)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_a_script_that_succeeds(runs: Runs) -> None:
    outcome = runs.run(
        """
        assert json.load(open(arguments.input)) == {"rows": 3}
        print("hello from the script")
        (output / "model.onnx").write_bytes(b"model")
        (output / "model.toml").write_text("note = 'x'")
        """
    )
    assert outcome.ending is Ending.SUCCEEDED
    assert outcome.model is not None
    assert outcome.model.read_bytes() == b"model"
    assert outcome.draft == outcome.model.with_name("model.toml")
    assert outcome.baseline is None
    assert "hello from the script" in runs.log()
    assert sorted(p.name for p in runs.directory.iterdir()) == ["input.json", "log.txt", "output"]
    assert runs.left_behind() == []


def test_a_script_that_fails_tells_why(runs: Runs) -> None:
    outcome = runs.run("raise SystemExit('no data for label 3')")
    assert (outcome.ending, outcome.exit_code) == (Ending.FAILED, 1)
    assert "exit code 1" in outcome.message
    assert "no data for label 3" in outcome.message


@pytest.mark.parametrize("code", [200, 255])
def test_an_exit_code_that_is_no_signal_is_said_as_it_is(runs: Runs, code: int) -> None:
    outcome = runs.run(f"raise SystemExit({code})")
    assert (outcome.ending, outcome.exit_code) == (Ending.FAILED, code)
    assert f"exit code {code}" in outcome.message


def test_a_script_that_crashes_names_the_signal(runs: Runs) -> None:
    outcome = runs.run("os.kill(os.getpid(), 11)")
    assert outcome.ending is Ending.FAILED
    assert "SIGSEGV" in outcome.message


def test_a_script_that_hangs_is_stopped_with_its_children(runs: Runs) -> None:
    outcome = runs.run(
        """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid)
        time.sleep(600)
        """,
        timeout_s=1.5,
    )
    assert outcome.ending is Ending.TIMED_OUT
    assert "did not end within 1.5 s" in outcome.message
    wait_gone(int(runs.log().split()[1]))
    assert runs.left_behind() == []


def test_a_script_that_writes_no_model(runs: Runs) -> None:
    outcome = runs.run("print('done, I think')")
    assert outcome.ending is Ending.NO_MODEL
    assert "without writing" in outcome.message
    assert "done, I think" in outcome.message


@pytest.mark.parametrize(
    "body",
    [
        "(output / 'model.onnx').write_bytes(b'')",
        "(output / 'model.onnx').mkdir()",
        "(output / 'model.onnx').symlink_to('/etc/hostname')",
    ],
)
def test_what_is_no_file_with_content_is_no_model(runs: Runs, body: str) -> None:
    assert runs.run(body).ending is Ending.NO_MODEL


def test_garbage_is_handed_on_and_refused_by_packaging(runs: Runs) -> None:
    from edgeloop_controller.errors import PackagingError
    from edgeloop_controller.packaging.introspect import introspect

    outcome = runs.run("(output / 'model.onnx').write_bytes(b'garbage' * 100)")
    assert outcome.model is not None
    with pytest.raises(PackagingError, match="not an ONNX model"):
        introspect(outcome.model.read_bytes())


def test_a_script_that_wants_too_much_memory_fails(runs: Runs) -> None:
    outcome = runs.run("x = bytearray(3 * 1024**3)", memory_max_bytes=512 * 1024**2)
    assert outcome.ending is Ending.FAILED
    assert "MemoryError" in outcome.message


def test_a_flood_is_cut_in_its_middle(runs: Runs) -> None:
    outcome = runs.run(
        """
        print("the beginning")
        line = "x" * 1000
        for _ in range(5000): print(line)
        print("the end")
        raise SystemExit(3)
        """
    )
    assert outcome.exit_code == 3
    assert "the end" in outcome.message
    log = runs.log()
    assert log.startswith("the beginning")
    assert "bytes cut ...]" in log
    assert len(log) < HEAD_MAX_BYTES + TAIL_MAX_BYTES + 100


def test_a_child_left_behind_ends_with_the_script(runs: Runs) -> None:
    outcome = runs.run(
        """
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid)
        (output / "model.onnx").write_bytes(b"model")
        """
    )
    assert outcome.ending is Ending.SUCCEEDED
    wait_gone(int(runs.log().split()[1]))


def test_cancelling_stops_it(runs: Runs) -> None:
    runs.write("print('started'); time.sleep(600)")
    cancel, outcomes = threading.Event(), []
    thread = threading.Thread(target=lambda: outcomes.append(runs.executor.run(runs.job(), cancel)))
    thread.start()
    deadline = time.monotonic() + 20
    while not (runs.directory / "log.txt").exists() or "started" not in runs.log():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cancel.set()
    thread.join(20)
    assert outcomes[0].ending is Ending.CANCELLED
    assert runs.left_behind() == []


def test_the_environment_is_an_allow_list(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "secret")
    runs.run("print(sorted(os.environ)); print(os.environ['TMPDIR'])")
    assert MARK not in runs.log()
    assert "PATH" in runs.log()
    assert str(runs.directory / "tmp") in runs.log()
    assert not (runs.directory / "tmp").exists()


def test_sets_have_the_same_order_in_every_run(runs: Runs) -> None:
    """A version is known by its bytes, and libraries write what they keep in sets."""
    orders = set()
    for _ in range(3):
        runs.run("print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}))")
        orders.add(runs.log())
    assert len(orders) == 1


def test_a_script_that_is_not_there(runs: Runs) -> None:
    outcome = runs.executor.run(runs.job(), threading.Event())
    assert outcome.ending is Ending.NOT_STARTED
    assert str(runs.script) in outcome.message


@pytest.mark.e2e
def test_a_killed_controller_leaves_no_script_behind(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import os, time; print('pid', os.getpid()); time.sleep(600)")
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from edgeloop_controller.training.executor import LocalExecutor, TrainingJob\n"
        f"job = TrainingJob(Path({str(script)!r}), Path({str(tmp_path)!r}), 600, 2**31)\n"
        "LocalExecutor().run(job, threading.Event())\n"
    )
    controller = subprocess.Popen([sys.executable, "-c", program])
    try:
        log, deadline = tmp_path / "log.txt", time.monotonic() + 30
        while not log.exists() or not log.read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(controller.pid, signal.SIGKILL)
        controller.wait()
    wait_gone(int(log.read_text().split()[1]))
