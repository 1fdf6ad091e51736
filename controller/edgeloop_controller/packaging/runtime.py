"""Running a model away from the controller: a child process with a time and a memory limit.

Invariants: a model that crashes, hangs or exhausts memory takes down the child, never the caller;
nothing is unpickled; nothing stays on disk.
"""

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.interface import Interface

Floats = NDArray[np.float32]
Outputs = Mapping[str, NDArray[np.generic]]

RUN_TIMEOUT_S: Final = 60.0
RUN_MEMORY_MAX_BYTES: Final = 4 * 1024**3
RUN_MESSAGE_MAX_CHARS: Final = 400


class RunModel(Protocol):
    """How packaging and evaluation run a model; `run_model` is the real one."""

    def __call__(self, model: bytes, inputs: Floats, interface: Interface) -> Outputs:
        """All outputs as real numbers, by name, for `inputs` (rows, features), one after the other
        from a fresh state. Raises PackagingError."""


def run_model(
    model: bytes, inputs: Floats, interface: Interface, timeout_s: float = RUN_TIMEOUT_S
) -> Outputs:
    """Run a model by its runtime in a child process. Raises PackagingError."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-run-") as name:
        directory = Path(name)
        (directory / "model").write_bytes(model)
        (directory / "interface.json").write_text(interface.model_dump_json(), encoding="utf-8")
        np.save(directory / "inputs.npy", np.ascontiguousarray(inputs, dtype=np.float32))
        _run_child(directory, timeout_s)
        return _read_outputs(directory / "outputs.npz", len(inputs))


def _run_child(directory: Path, timeout_s: float) -> None:
    command = [sys.executable, "-m", "edgeloop_controller.packaging.runtime_child", str(directory)]
    with (directory / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [*command, str(RUN_MEMORY_MAX_BYTES)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise PackagingError(
                f"the model did not finish within {timeout_s:g} s",
                "publish a model that answers its baseline rows in that time, or fewer rows",
            ) from error
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code != 0:
        raise PackagingError(*_explain(code, directory))


def _explain(code: int, directory: Path) -> tuple[str, str]:
    """What happened and the mend; a child that fails in an orderly way leaves error.txt."""
    told = directory / "error.txt"
    hint = "load and run it with its runtime yourself to see more"
    if told.exists():
        message = told.read_text(encoding="utf-8", errors="replace")[:RUN_MESSAGE_MAX_CHARS]
        return f"the model cannot be run: {message}", hint
    if code < 0:
        name = signal.Signals(-code).name
        return f"the model crashed its runtime ({name})", hint
    tail = (directory / "log.txt").read_bytes()[-RUN_MESSAGE_MAX_CHARS:].decode(errors="replace")
    return f"the model could not be run (exit code {code}): {tail.strip()}", hint


def _read_outputs(path: Path, rows: int) -> Outputs:
    try:
        with np.load(path, allow_pickle=False) as stored:
            outputs = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PackagingError(f"the model's outputs cannot be read: {error}") from error
    for name, output in outputs.items():
        if output.ndim == 0 or len(output) != rows:
            raise PackagingError(
                f"output {name!r} has shape {output.shape} for {rows} examples",
                "the first dimension of every output must be the batch",
            )
    return outputs
