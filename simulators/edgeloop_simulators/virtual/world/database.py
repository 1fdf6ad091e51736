"""Where the controller's database of one world lies, and how it begins.

Invariant: a world leaves nothing behind; each begins at this release's schema.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from edgeloop_controller.store.engine import Database


@contextmanager
def database_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgeloop-world-", dir=_fast_directory()) as made:
        directory = Path(made)
        (directory / "edgeloop.sqlite").write_bytes(_empty_database())
        yield directory


def _fast_directory() -> str | None:
    """In memory where there is such a place: worlds are thrown away."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - made by tempfile


@lru_cache(maxsize=1)
def _empty_database() -> bytes:
    """At this release's schema; migrating takes longer than many a world."""
    directory = Path(tempfile.mkdtemp(prefix="edgeloop-schema-"))
    try:
        Database(f"sqlite:///{directory / 'edgeloop.sqlite'}", durable=False).close()
        return (directory / "edgeloop.sqlite").read_bytes()
    finally:
        shutil.rmtree(directory)
