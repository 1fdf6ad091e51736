"""Files that only their owner may read, written so that they are there whole or not at all.

Invariants: such a file never exists with wider rights, not even for a moment; directories are 0700.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from edgeloop_controller.durable_names import sync_directory

OWNER_ONLY: Final = 0o600
DIRECTORY_OWNER_ONLY: Final = 0o700


def make_secret_directory(directory: Path) -> None:
    """As `mkdir -p`, the last one for its owner alone."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=DIRECTORY_OWNER_ONLY)


def write_file(path: Path, content: bytes, mode: int = OWNER_ONLY) -> None:
    """Replace `path` durably."""
    aside = _aside(path, content, mode)
    os.replace(aside, path)  # noqa: PTH105 - beside the link below
    sync_directory(path.parent)


def write_new_file(path: Path, content: bytes, mode: int = OWNER_ONLY) -> bool:
    """False: it was there already, and is left as it is."""
    aside = _aside(path, content, mode)
    try:
        os.link(aside, path)  # fails where a name exists, which a rename does not
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    sync_directory(path.parent)
    return True


def _aside(path: Path, content: bytes, mode: int) -> Path:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    return aside
