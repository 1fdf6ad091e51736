"""A directory's names, made to survive a power cut: a file's own fsync does not save its name."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
