"""What runners print: a bounded log a slot, and the last words of each process."""

from pathlib import Path
from typing import Final

from edgeloop_agent.shell.bounded_log import BoundedLog

TAIL_MAX_BYTES: Final = 2000


def runner_log_path(state_dir: Path, slot: str) -> Path:
    return state_dir / f"runner-{slot}.log"


def runner_log(state_dir: Path, slot: str) -> BoundedLog:
    return BoundedLog(runner_log_path(state_dir, slot))


class Tail:
    """The last words of one process, to say in one line why it ended."""

    def __init__(self) -> None:
        self._bytes = b""

    def write(self, chunk: bytes) -> None:
        self._bytes = (self._bytes + chunk)[-TAIL_MAX_BYTES:]

    def last_line(self) -> str:
        lines = [line.strip() for line in self._bytes.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
