"""glibc's malloc, asked to keep one heap for all threads of a process.

Each thread would else have one of its own, which is given what the thread decodes and keeps it:
with five threads some 3 MB of a supervisor, still growing after hundreds of updates. What threads
wait for each other then is nothing beside what they wait for.
"""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8


def keep_one_heap() -> None:
    """Before a thread is started. Another C library has no such thing, and needs none."""
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        return
