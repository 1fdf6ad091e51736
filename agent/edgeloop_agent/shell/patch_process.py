"""Applies patches in a child process (`edgeloop_agent.patching.main`), the way of PatchApplier.

Invariants: whatever a patch does to the child, the supervisor gets a PatchFailedError within
APPLY_TIMEOUT_S; it imports none of what the formats need, and looks only whether that is installed.
"""

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from edgeloop_agent.errors import PatchFailedError
from edgeloop_agent.ports import PatchJob
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.patch_formats import HDIFF, TENSORS

APPLY_TIMEOUT_S: Final = 180.0
WORDS_MAX_BYTES: Final = 300
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    TENSORS: ("numpy", "zstandard"),
    HDIFF: ("hdiffpatch",),
}
"""Format → distributions; the extra `deltas` brings them."""

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class PatchProcess:
    def __init__(self, disk: OsDisk, timeout_s: float = APPLY_TIMEOUT_S) -> None:
        self._disk = disk
        self._timeout_s = timeout_s
        self.formats = applicable_formats()

    def apply(self, job: PatchJob) -> None:
        paths = [str(self._disk.path(path)) for path in (job.base, job.patch, job.result)]
        command = [sys.executable, "-P", "-m", "edgeloop_agent.patching.main", job.format]
        try:
            # stdin stays open as long as this process lives: the child ends with it.
            child = subprocess.Popen(
                [*command, *paths, str(job.result_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | _ONE_THREAD,
            )
        except OSError as error:
            raise PatchFailedError(f"the applier does not start: {error}") from error
        with child:
            try:
                code = child.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                raise PatchFailedError(f"not applied within {self._timeout_s:g} s") from None
            except BaseException:
                child.kill()
                raise
            if code:
                raise PatchFailedError(_why(code, child))


def applicable_formats() -> tuple[str, ...]:
    return tuple(name for name, needs in NEEDS.items() if all(map(_is_installed, needs)))


def _why(code: int, child: "subprocess.Popen[bytes]") -> str:
    if code < 0:
        return f"the applier was ended by {signal.Signals(-code).name}"
    assert child.stderr is not None
    # It has ended: what it said is in the pipe, and no more than a pipe holds.
    words = os.read(child.stderr.fileno(), 1 << 16)[-WORDS_MAX_BYTES:]
    last = words.decode(errors="replace").strip().rpartition("\n")[2]
    return last or f"the applier ended with code {code}"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
