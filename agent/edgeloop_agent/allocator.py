"""glibc's malloc, asked to hold less of what is free.

It gives each thread a heap of its own, which what the thread decodes and keeps stays on: with five
threads some 3 MB of a supervisor, still growing after hundreds of updates. Buffers that come and go
(a batch to send, what is read from a runner) leave holes between what stays: 1.4 MB after 300
updates, of 9.0, where 7.6 are in use, now as after ten. And once a large piece was freed it holds
as much again back at the heap's end. Waiting for each other and for the kernel costs threads
nothing beside what they wait for anyway; a runner, whose arrays come and go at each inference, does
the first only.
"""

import ctypes
from typing import Final

from edgeloop_protocol.limits import KIB

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HELD_MAX_BYTES: Final = 64 * KIB
_BUFFER_MIN_BYTES: Final = 32 * KIB
"""From here on a piece is mapped alone, and goes back as a whole. glibc begins with 128 KiB for
both, and learns from what is freed to hold more."""


def keep_one_heap() -> None:
    """For all threads; before one is started."""
    _set(_M_ARENA_MAX, 1)


def give_back_early() -> None:
    _set(_M_TRIM_THRESHOLD, _HELD_MAX_BYTES)
    _set(_M_MMAP_THRESHOLD, _BUFFER_MIN_BYTES)


def _set(parameter: int, value: int) -> None:
    """Another C library has no such thing, and needs none."""
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, AttributeError):
        return
