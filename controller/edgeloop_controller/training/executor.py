"""Running a user's training script: the `Executor` port, and a local subprocess.

Invariants: a run ends within its time limit whatever the script does; no process of its group
outlives it, not even when the controller is killed; its memory and its log are bounded; it sees
only the allow-listed environment, and nothing of what is hidden from it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Final, Protocol

import edgeloop_protocol
from edgeloop_controller.training.bounded_log import BoundedLog

POLL_S: Final = 0.05
STOP_TIMEOUT_S: Final = 10.0
MESSAGE_TAIL_CHARS: Final = 2000

ENVIRONMENT_ALLOWED: Final = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What a script sees of the controller's environment; TMPDIR and PYTHONUNBUFFERED are set, and
PYTHONHASHSEED, so that the same input gives the same model: skl2onnx writes its opsets in the order
of a set, and a version is known by its bytes."""


class Ending(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    NO_MODEL = "no_model"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"


@dataclass(frozen=True)
class TrainingJob:
    """`directory` holds input.json (see training.dataset); output/ and log.txt appear in it."""

    script: Path
    directory: Path
    timeout_s: float
    memory_max_bytes: int
    inputs: tuple[Path, ...] = ()
    """Files that the script may read, wherever they lie."""


@dataclass(frozen=True)
class Outcome:
    """How a script ended; `message` says it in words, with the tail of the log where it failed."""

    ending: Ending
    message: str
    duration_s: float
    exit_code: int | None = None
    model: Path | None = None
    draft: Path | None = None
    """output/model.toml, if the script wrote one."""
    baseline: Path | None = None
    """output/baseline.parquet, if the script wrote one."""


class Executor(Protocol):
    """Where training scripts run."""

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        """Blocks until the script ended, timed out, or `cancel` was set. Raises nothing."""


class LocalExecutor:
    """`python <script> --input <dir>/input.json --output <dir>/output`, in its own process group.

    Runs in <dir>; log in <dir>/log.txt, its middle cut out beyond the limit of `BoundedLog`.
    `hidden`: directories and files that a script can neither read nor write, nor what is beneath,
    but for its own directory, the job's and its inputs. It needs Landlock (Linux 5.13).
    """

    def __init__(self, hidden: Sequence[Path] = ()) -> None:
        self._hidden = tuple(hidden)

    def run(self, job: TrainingJob, cancel: Event) -> Outcome:
        began = time.monotonic()
        script, directory = job.script.resolve(), job.directory.resolve()
        if not script.is_file():
            return Outcome(Ending.NOT_STARTED, f"there is no training script at {script}", 0.0)
        scratch = directory / "tmp"
        try:
            # What an interrupted attempt left there is not this one's.
            shutil.rmtree(directory / "output", ignore_errors=True)
            (directory / "output").mkdir(parents=True, exist_ok=True)
            scratch.mkdir(exist_ok=True)
            with BoundedLog(directory / "log.txt") as log:
                is_among = script.parent in [path.resolve() for path in self._hidden]
                shown = (directory, script if is_among else script.parent, *job.inputs)
                terms = _terms(job.memory_max_bytes, self._hidden, shown)
                launcher = _start(script, directory, scratch, terms)
                log.follow(launcher.stdout)
                stopped = _wait(launcher, cancel, began + job.timeout_s)
        except OSError as error:
            took = time.monotonic() - began
            return Outcome(Ending.NOT_STARTED, f"the script could not be run: {error}", took)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        took = time.monotonic() - began
        return _outcome(job, directory, stopped, launcher.returncode, took)


def _terms(memory_max_bytes: int, hidden: Iterable[Path], shown: Iterable[Path]) -> str:
    """What the launcher is told."""
    return json.dumps(
        {
            "memory_max_bytes": memory_max_bytes,
            "hidden": [str(path.absolute()) for path in hidden],
            "shown": [str(path.absolute()) for path in shown],
            "packages": str(Path(edgeloop_protocol.__file__).parents[1]),
        }
    )


def _start(script: Path, directory: Path, scratch: Path, terms: str) -> subprocess.Popen[bytes]:
    """The launcher kills the script's group when its stdin closes: also when we are killed."""
    environment = {k: os.environ[k] for k in ENVIRONMENT_ALLOWED if k in os.environ}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0", "TMPDIR": str(scratch)}
    arguments = [str(script), "--input", str(directory / "input.json")]
    arguments += ["--output", str(directory / "output")]
    launcher = Path(__file__).with_name("launcher.py")
    return subprocess.Popen(
        [sys.executable, "-I", str(launcher), terms, sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        start_new_session=True,
    )


def _wait(launcher: subprocess.Popen[bytes], cancel: Event, deadline: float) -> Ending | None:
    """None when the script ended by itself, else why it was stopped."""
    assert launcher.stdin is not None
    stopped: Ending | None = None
    try:
        while launcher.poll() is None and stopped is None:
            if cancel.wait(POLL_S):
                stopped = Ending.CANCELLED
            elif time.monotonic() >= deadline:
                stopped = Ending.TIMED_OUT
    finally:
        launcher.stdin.close()
        try:
            launcher.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
    return stopped


def _outcome(
    job: TrainingJob, directory: Path, stopped: Ending | None, code: int, took: float
) -> Outcome:
    output = directory / "output"
    if stopped is Ending.TIMED_OUT:
        message = f"the script did not end within {job.timeout_s:g} s; raise timeout_s"
        return Outcome(Ending.TIMED_OUT, message + _tail(directory), took)
    if stopped is Ending.CANCELLED:
        return Outcome(Ending.CANCELLED, "the run was cancelled", took)
    if code != 0:
        message = f"the script failed with {_exit_in_words(code)}" + _tail(directory)
        return Outcome(Ending.FAILED, message, took, exit_code=code)
    model = _written(output / "model.onnx")
    if model is None:
        message = f"the script ended without writing {output / 'model.onnx'}" + _tail(directory)
        return Outcome(Ending.NO_MODEL, message, took, exit_code=code)
    return Outcome(
        Ending.SUCCEEDED,
        f"the script wrote a model in {took:.1f} s",
        took,
        exit_code=code,
        model=model,
        draft=_written(output / "model.toml"),
        baseline=_written(output / "baseline.parquet"),
    )


def _exit_in_words(code: int | None) -> str:
    """The launcher and shells give 128 + n for signal n; a script may exit with any number."""
    try:
        return f"signal {signal.Signals((code or 0) - 128).name}"
    except ValueError:
        return f"exit code {code}"


def _written(path: Path) -> Path | None:
    """A file with something in it; a link could lead out of the run's folder and is not one."""
    return path if path.is_file() and not path.is_symlink() and path.stat().st_size else None


def _tail(directory: Path) -> str:
    log = (directory / "log.txt").read_bytes()[-4 * MESSAGE_TAIL_CHARS :]
    text = log.decode(errors="replace")[-MESSAGE_TAIL_CHARS:].strip()
    return f"; its log ends:\n{text}" if text else "; its log is empty"
