"""Files that survive a power cut: write aside, fsync, rename, fsync the directory.

Source: DESIGN §4 — file-only fsync lost the new file in 9 of 12 simulated power cuts, with the
directory's in none of 12.
"""

import os
from pathlib import Path
from typing import Final

ASIDE_SUFFIX: Final = ".tmp"


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: after a crash there is the old file or the new, never half."""
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
