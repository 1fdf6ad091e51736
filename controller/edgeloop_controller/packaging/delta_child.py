"""The child of `deltas`: makes patches from one model file to another, in a folder.

Usage: python -m edgeloop_controller.packaging.delta_child BASE NEW DIRECTORY
Invariant: a patch is left in the folder, as a file named by its format, only if it was applied and
gave the new file; what goes wrong ends the process with a code that is not 0.
"""

import io
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import hdiffpatch

from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.patch_formats import HDIFF, TENSORS
from edgeloop_protocol.tensor_patch import apply_tensor_patch

MEMORY_MAX_BYTES: Final = 8 * 1024**3
NICENESS: Final = 10
HDIFF_LEVEL: Final = 19


def main(base_path: Path, new_path: Path, directory: Path) -> int:
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    base, new = base_path.read_bytes(), new_path.read_bytes()
    for name, make in MAKERS.items():
        (directory / name).write_bytes(make(base, new))
    return 0


def make_tensors(base: bytes, new: bytes) -> bytes:
    patch = make_tensor_patch(base, new)
    made = io.BytesIO()
    apply_tensor_patch(io.BytesIO(base), io.BytesIO(patch), made.write, len(new))
    if made.getvalue() != new:
        raise AssertionError("the patch does not give the new file")
    return patch


def make_hdiff(base: bytes, new: bytes) -> bytes:
    """It applies what it made, and raises where that is not the new file."""
    zstd = hdiffpatch.ZStdConfig(HDIFF_LEVEL)
    patch: bytes = hdiffpatch.diff(base, new, compression=zstd, validate=True)
    return patch


MAKERS: Final[dict[str, Callable[[bytes, bytes], bytes]]] = {
    TENSORS: make_tensors,
    HDIFF: make_hdiff,
}

if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
