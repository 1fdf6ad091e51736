"""A run's log with a bound: its beginning and its end are kept, the middle is counted.

Invariants: the file never exceeds HEAD_MAX_BYTES + TAIL_MAX_BYTES and one line; a script is never
blocked by its log.
"""

from collections import deque
from pathlib import Path
from threading import Thread
from typing import IO, Final, Self

HEAD_MAX_BYTES: Final = 512 * 1024
TAIL_MAX_BYTES: Final = 512 * 1024
READ_BYTES: Final = 64 * 1024
DRAIN_TIMEOUT_S: Final = 5.0


class BoundedLog:
    """Copies a pipe into a file from a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._cut_bytes = 0
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("wb", buffering=0)
        return self

    def follow(self, pipe: IO[bytes] | None) -> None:
        """Read until every writer has closed it."""
        assert pipe is not None
        self._thread = Thread(target=self._copy, args=(pipe,), name="training-log", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            # A process that left the script's group may hold the pipe; what came is kept.
            self._thread.join(DRAIN_TIMEOUT_S)
        file, self._file = self._file, None
        assert file is not None
        with file:
            if self._cut_bytes:
                file.write(f"\n[... {self._cut_bytes} bytes cut ...]\n".encode())
            file.writelines(list(self._tail))

    def _copy(self, pipe: IO[bytes]) -> None:
        with pipe:
            written = 0
            while chunk := pipe.read1(READ_BYTES):  # type: ignore[attr-defined]
                file = self._file
                if file is None:
                    return
                room = HEAD_MAX_BYTES - written
                if room > 0:
                    file.write(chunk[:room])
                    written += len(chunk[:room])
                    chunk = chunk[room:]
                if chunk:
                    self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes > TAIL_MAX_BYTES:
            dropped = self._tail.popleft()
            self._tail_bytes -= len(dropped)
            self._cut_bytes += len(dropped)
