"""The memory that this process holds, from the kernel's own count, and its end in words."""

import os
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_OUT_OF_MEMORY: Final = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Unable to allocate",
    "MemoryError",
)


def resident_bytes() -> int:
    """Resident set size; 0 where there is no /proc."""
    return _counted(1)


def address_space_bytes() -> int:
    """Everything mapped, touched or not; 0 where there is no /proc."""
    return _counted(0)


def in_words(problem: str, memory_max_bytes: int) -> str:
    """A failed allocation, which each library says in its own words, as what it is."""
    if memory_max_bytes and any(sign in problem for sign in _OUT_OF_MEMORY):
        return f"memory: beyond its limit of {memory_max_bytes} bytes: {problem}"
    return problem


def _counted(field: int) -> int:
    try:
        return int(_STATM.read_text().split()[field]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
