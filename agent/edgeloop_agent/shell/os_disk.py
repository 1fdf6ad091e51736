"""The state directory on the real disk.

Invariants: `sync` and `sync_directory` are fsync; nothing is buffered here, so what `write`
returned for is the kernel's.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgeloop_protocol.limits import MIB


class _OsFile:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        return self._file.write(content)

    def sync(self) -> None:
        os.fsync(self._file.fileno())


class OsDisk:
    """`root` is made durably if it is not there: what is synced in it is else lost with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        _make_durably(root)

    def path(self, path: str) -> Path:
        """Where a file of the state directory is, for other processes."""
        return self.root / path

    @contextmanager
    def open(self, path: str, append: bool = False) -> Iterator[_OsFile]:
        with (self.root / path).open("ab" if append else "wb", buffering=0) as file:
            yield _OsFile(file)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def size(self, path: str) -> int | None:
        try:
            return (self.root / path).stat().st_size
        except FileNotFoundError:
            return None

    def digest(self, path: str) -> str | None:
        digest = hashlib.sha256()
        try:
            with (self.root / path).open("rb") as file:
                while chunk := file.read(1 * MIB):
                    digest.update(chunk)
        except OSError:
            return None
        return digest.hexdigest()

    def rename(self, old: str, new: str) -> None:
        (self.root / old).replace(self.root / new)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def make_directory(self, path: str) -> None:
        (self.root / path).mkdir(exist_ok=True)

    def list(self, path: str) -> tuple[str, ...]:
        entries = (self.root / path).iterdir()
        return tuple(sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries))

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(self.root / path, ignore_errors=True)

    def sync_directory(self, path: str) -> None:
        _sync_directory(self.root / path)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free


def _make_durably(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_durably(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
