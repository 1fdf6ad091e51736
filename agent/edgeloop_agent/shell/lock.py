"""One agent a state directory, held by a lock that the kernel releases when the agent dies."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from edgeloop_agent.errors import StateDirInUseError

FILE_NAME: Final = "agent.lock"


class StateDirLock:
    """Raises StateDirInUseError while another process holds it."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / FILE_NAME
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise StateDirInUseError(
                f"another agent (pid {holder}) runs on {state_dir}: stop it, or give this one "
                "another state_dir"
            ) from error
        with contextlib.suppress(OSError):  # the lock is what counts, not who is named in it
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), str(os.getpid()).encode())

    def release(self) -> None:
        self._file.close()


def is_locked(state_dir: Path) -> bool:
    """Does an agent run on this state directory?"""
    try:
        with (state_dir / FILE_NAME).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
