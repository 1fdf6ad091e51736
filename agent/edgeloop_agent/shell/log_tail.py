"""Reading a bounded log: its last lines, and what comes to it from now on.

Invariants: reads at most the two files of one log; a log that is turned over while it is followed
loses nothing that was written before it was looked at again; bytes that are no text are shown as �.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeloop_agent.shell.bounded_log import older


def last_lines(path: Path, lines_max: int) -> list[str]:
    """Oldest first; none where there is no log yet."""
    content = _read(older(path)) + _read(path)
    return content.decode(errors="replace").splitlines()[-lines_max:]


class Follower:
    """`new_text` each time it is asked; begins at the log's end as of its making."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = self._open()
        if self._file is not None:
            self._file.seek(0, 2)

    def new_text(self) -> str:
        return "".join(chunk.decode(errors="replace") for chunk in self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        if self._file is not None:
            yield self._file.read()
            if self._is_current(self._file):
                return
            self._file.close()
        self._file = self._open()
        if self._file is not None:
            yield self._file.read()

    def _is_current(self, file: BinaryIO) -> bool:
        """A log that was turned over has no file of its name until the next line."""
        try:
            return self._path.stat().st_ino == _inode(file)
        except OSError:
            return True

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except OSError:
            return None


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
