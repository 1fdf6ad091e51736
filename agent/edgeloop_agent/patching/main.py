"""The child that makes an artifact from another one and a patch.

Usage: python -m edgeloop_agent.patching.main FORMAT BASE PATCH RESULT RESULT_BYTES
Invariants: it takes no more memory, processor time and disk than the limits below; what goes wrong
is one line on stderr and exit code 1; it ends with its supervisor, whose end of stdin then closes.
"""

import os
import resource
import sys
import threading
from pathlib import Path
from typing import Final

from edgeloop_protocol.errors import PatchError
from edgeloop_protocol.limits import MIB
from edgeloop_protocol.patch_formats import HDIFF, TENSORS

MEMORY_MAX_BYTES: Final = 192 * MIB
"""Of address space, half of which is numpy's libraries; what hdiff holds whole comes on top."""

CPU_S_MAX: Final = 120
NICENESS: Final = 10


def main(patch_format: str, base: Path, patch: Path, result: Path, result_bytes: int) -> int:
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    os.nice(NICENESS)
    try:
        _limit(patch_format, base, patch, result_bytes)
        if patch_format not in APPLIERS:
            raise PatchError(f"unknown format {patch_format!r}")
        APPLIERS[patch_format](base, patch, result, result_bytes)
    except MemoryError:
        return _fail("it needs more memory than it may have")
    except Exception as error:  # libraries raise their own; all are told to the supervisor
        return _fail(f"{error or type(error).__name__}")
    return 0


def _limit(patch_format: str, base: Path, patch: Path, result_bytes: int) -> None:
    memory_bytes = MEMORY_MAX_BYTES
    if patch_format == HDIFF:
        memory_bytes += base.stat().st_size + 2 * patch.stat().st_size + 2 * result_bytes
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, CPU_S_MAX),
        (resource.RLIMIT_FSIZE, result_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def _apply_tensors(base: Path, patch: Path, result: Path, result_bytes: int) -> None:
    from edgeloop_protocol.tensor_patch import apply_tensor_patch

    with base.open("rb") as old, patch.open("rb") as how, result.open("wb") as new:
        apply_tensor_patch(old, how, new.write, result_bytes)


def _apply_hdiff(base: Path, patch: Path, result: Path, result_bytes: int) -> None:
    import hdiffpatch

    made = hdiffpatch.apply(base.read_bytes(), patch.read_bytes())
    if len(made) != result_bytes:
        raise PatchError(f"it gives {len(made)} bytes in place of {result_bytes}")
    result.write_bytes(made)


APPLIERS: Final = {TENSORS: _apply_tensors, HDIFF: _apply_hdiff}


def _end_with_the_supervisor() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _fail(why: str) -> int:
    print(why, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    what, old, how, new, size = sys.argv[1:]
    sys.exit(main(what, Path(old), Path(how), Path(new), int(size)))
