"""What a process and a state directory hold at one moment, from outside."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_ROLLUP: Final = ("Rss", "Pss", "Private_Dirty", "Anonymous")
_OUTBOX: Final = "outbox.sqlite"
_LOGS: Final = (".log", ".log.1")


@dataclass(frozen=True, slots=True)
class Memory:
    """Kilobytes (1,000 bytes), as /proc/PID/smaps_rollup has them. `pss`: a page that several
    processes map counts in shares; `private_dirty`: what this process alone costs."""

    rss: float
    pss: float
    private_dirty: float
    anonymous: float


@dataclass(frozen=True, slots=True)
class ProcessWeight:
    memory: Memory
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Of a state directory: how many files, and bytes of some of them. `wal`: SQLite's log, which
    it overwrites once it is full."""

    files: int
    outbox: int
    wal: int
    models: int
    logs: int
    rest: int


def memory_of(pid: int) -> Memory:
    found = dict.fromkeys(_ROLLUP, 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1.024
    return Memory(*(found[name] for name in _ROLLUP))


def weigh(pid: int) -> ProcessWeight:
    process = psutil.Process(pid)
    return ProcessWeight(memory_of(pid), process.num_fds(), process.num_threads())


def stored_in(state_dir: Path) -> Stored:
    """What goes while this looks, a file or a folder, counts as gone."""
    sizes: dict[Path, int] = {}
    for folder, _, names in os.walk(state_dir):  # Path.rglob raises for a folder that goes
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
    outbox = sum(size for path, size in sizes.items() if path.name == _OUTBOX)
    wal = sum(size for path, size in sizes.items() if path.name == f"{_OUTBOX}-wal")
    models = sum(size for path, size in sizes.items() if "models" in path.parts)
    logs = sum(size for path, size in sizes.items() if path.name.endswith(_LOGS))
    rest = sum(sizes.values()) - outbox - wal - models - logs
    named = [path for path in sizes if not path.name.endswith((".log.1", ".tmp"))]
    return Stored(len(named), outbox, wal, models, logs, rest)
