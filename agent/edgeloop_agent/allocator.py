"""glibc's malloc, asked to hold less of what is free.

It gives each thread a heap of its own, which what the thread decodes and keeps stays on: with five
threads some 3 MB of a supervisor, still growing after hundreds of updates. And once a large piece
was freed it holds back as much again at the heap's end: another 1 to 2 MB. Waiting for each other
and for the kernel costs threads nothing beside what they wait for anyway; a runner, whose arrays
come and go at each inference, does the first only.
"""

import ctypes
from typing import Final

from edgeloop_protocol.limits import KIB

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HELD_MAX_BYTES: Final = 128 * KIB
"""What glibc begins with, before it learns from what is freed."""


def keep_one_heap() -> None:
    """For all threads; before one is started."""
    _set(_M_ARENA_MAX, 1)


def give_back_early() -> None:
    _set(_M_TRIM_THRESHOLD, _HELD_MAX_BYTES)
    _set(_M_MMAP_THRESHOLD, _HELD_MAX_BYTES)


def _set(parameter: int, value: int) -> None:
    """Another C library has no such thing, and needs none."""
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, AttributeError):
        return
