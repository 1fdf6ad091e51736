"""What runners print, in one bounded file a slot: `runner-<slot>.log` and one older.

Invariant: never more than RUNNER_LOG_MAX_BYTES on disk a slot, however much a model floods.
"""

import threading
from pathlib import Path
from typing import Final

from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES

FILE_MAX_BYTES: Final = RUNNER_LOG_MAX_BYTES // 2
TAIL_MAX_BYTES: Final = 2000


class RunnerLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def write(self, chunk: bytes) -> None:
        with self._lock:
            try:
                with self._path.open("ab") as file:
                    file.write(chunk[-FILE_MAX_BYTES:])
                    full = file.tell() >= FILE_MAX_BYTES
                if full:
                    self._path.replace(self._path.with_name(self._path.name + ".1"))
            except OSError:
                return  # a full disk: the log is the first thing to go without


class Tail:
    """The last words of one process, to say in one line why it ended."""

    def __init__(self) -> None:
        self._bytes = b""

    def write(self, chunk: bytes) -> None:
        self._bytes = (self._bytes + chunk)[-TAIL_MAX_BYTES:]

    def last_line(self) -> str:
        lines = [line.strip() for line in self._bytes.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
