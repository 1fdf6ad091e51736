"""Patches between two model files, made in a child process with a time and a memory limit.

Invariants: files that exhaust, crash or hang an encoder take down the child, never the caller; what
is given is worth it: at most PATCH_SHARE_MAX of the new file, each smaller than those before it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_controller.errors import PackagingError
from edgeloop_protocol.limits import PATCH_SHARE_MAX
from edgeloop_protocol.patch_formats import HDIFF, TENSORS

MAKE_TIMEOUT_S: Final = 900.0
WORDS_MAX_CHARS: Final = 400


@dataclass(frozen=True)
class Delta:
    format: str
    content: bytes


def make_deltas(base: Path, new: Path, timeout_s: float = MAKE_TIMEOUT_S) -> list[Delta]:
    """Largest first; none: the full file is the shortest way. Raises PackagingError."""
    with tempfile.TemporaryDirectory(prefix="edgeloop-delta-") as name:
        directory = Path(name)
        _run_child(base, new, directory, timeout_s)
        limit_bytes = PATCH_SHARE_MAX * new.stat().st_size
        deltas: list[Delta] = []
        for patch_format in (TENSORS, HDIFF):
            size = (directory / patch_format).stat().st_size
            if size <= limit_bytes:
                deltas.append(Delta(patch_format, (directory / patch_format).read_bytes()))
                limit_bytes = size - 1
        return deltas


def _run_child(base: Path, new: Path, directory: Path, timeout_s: float) -> None:
    command = [sys.executable, "-m", "edgeloop_controller.packaging.delta_child"]
    with (directory / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [*command, str(base), str(new), str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise PackagingError(f"no patch was made within {timeout_s:g} s") from error
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code:
        words = (directory / "log.txt").read_bytes()[-WORDS_MAX_CHARS:].decode(errors="replace")
        raise PackagingError(f"no patch was made (exit code {code}): {words.strip()}")
