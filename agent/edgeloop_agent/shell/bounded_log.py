"""A log of bounded size: one file, and one older beside it, `<name>.1`.

Invariants: never more than RUNNER_LOG_MAX_BYTES on disk a log, however much is written; a disk that
takes nothing loses lines and stops nobody.
"""

import threading
from pathlib import Path
from typing import Final

from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES

FILE_MAX_BYTES: Final = RUNNER_LOG_MAX_BYTES // 2


class BoundedLog:
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
                    self._path.replace(older(self._path))
            except OSError:
                return  # a full disk: the log is the first thing to go without


def older(path: Path) -> Path:
    return path.with_name(path.name + ".1")
