"""A state directory in memory: the twin of the agent's disk, with its faults.

Invariants: the same contract as the real one. A power cut leaves what POSIX promises and no more:
a file's content as of its last `sync`, a name as of the last `sync_directory` of its directory;
whether anything later survives, wholly or in part, luck decides. A rename is never half done. Once
`before` has raised what is no Exception, the process is dead: nothing is done until a reboot, not
even by its `finally` clauses.
"""

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from edgeloop_agent.shell.durable_files import directory_of
from edgeloop_simulators.virtual.kernel.streams import Luck

Operation = Literal[
    "open", "write", "sync", "read", "rename", "remove", "make_directory", "sync_directory"
]
Before = Callable[[Operation, str], None]

DIGESTS_REMEMBERED_MAX: Final = 256


@lru_cache(maxsize=DIGESTS_REMEMBERED_MAX)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(slots=True, eq=False)
class _Inode:
    content: bytes | None = b""
    """None: a directory."""
    synced: bytes | None = b""


@dataclass(slots=True)
class _Change:
    """A change of names that no directory's sync has made durable yet."""

    adds: dict[str, _Inode]
    removes: tuple[str, ...]

    def paths(self) -> tuple[str, ...]:
        return (*self.adds, *self.removes)


class _File:
    def __init__(self, disk: "MemoryDisk", path: str, inode: _Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode
        self._boot = disk.boots

    def write(self, content: bytes) -> int:
        self._check()
        return self._disk.write(self._path, self._inode, content)

    def sync(self) -> None:
        self._check()
        self._disk.ask("sync", self._path)
        self._inode.synced = self._inode.content

    def _check(self) -> None:
        if self._boot != self._disk.boots:
            raise OSError(errno.EBADF, "the process that had opened this is gone")


class MemoryDisk:
    """`capacity_bytes` is of all files together; `before` is asked ahead of every operation and
    may raise what it likes."""

    __slots__ = (
        "_death",
        "_durable",
        "_names",
        "_pending",
        "_used_bytes",
        "before",
        "boots",
        "capacity_bytes",
    )

    def __init__(self, capacity_bytes: int = 1 << 30, before: Before | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.before = before
        self.boots = 0
        self._names: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._pending: list[_Change] = []
        self._used_bytes: int | None = 0
        """None: to be counted anew."""
        self._death: BaseException | None = None

    # ---- the Disk port --------------------------------------------------------------------------

    @contextmanager
    def open(self, path: str, append: bool = False) -> Iterator[_File]:
        self.ask("open", path)
        inode = self._names.get(path)
        if inode is None:
            self._need_directory(directory_of(path))
            inode = _Inode()
            self._change({path: inode}, ())
        elif inode.content is None:
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        elif not append:
            inode.content, self._used_bytes = b"", None
        yield _File(self, path, inode)

    def read(self, path: str) -> bytes:
        self.ask("read", path)
        return self._file(path)

    def size(self, path: str) -> int | None:
        inode = self._names.get(path)
        return None if inode is None or inode.content is None else len(inode.content)

    def digest(self, path: str) -> str | None:
        try:
            return _sha256(self.read(path))
        except OSError:
            return None

    def rename(self, old: str, new: str) -> None:
        self.ask("rename", new)
        inode = self._names.get(old)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        self._need_directory(directory_of(new))
        self._change({new: inode}, (old,))

    def remove(self, path: str) -> None:
        self.ask("remove", path)
        if path in self._names:
            self._change({}, (path,))

    def make_directory(self, path: str) -> None:
        self.ask("make_directory", path)
        self._need_directory(directory_of(path))
        if path not in self._names:
            self._change({path: _Inode(None, None)}, ())

    def list(self, path: str) -> tuple[str, ...]:
        self._need_directory(path)
        inside = (name for name in self._names if directory_of(name) == path)
        return tuple(
            sorted(
                name.rpartition("/")[2] + ("/" if self._names[name].content is None else "")
                for name in inside
            )
        )

    def remove_tree(self, path: str) -> None:
        for name in sorted(self._names, reverse=True):
            if (name == path or name.startswith(f"{path}/")) and not self._is_filled(name):
                with suppress(OSError):
                    self.remove(name)

    def sync_directory(self, path: str) -> None:
        self.ask("sync_directory", path)
        self._need_directory(path)
        due, rest = _split(self._pending, path)
        for change in due:
            _apply(self._durable, change)
        self._pending = rest

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.used_bytes())

    # ---- what goes wrong ------------------------------------------------------------------------

    def process_killed(self) -> None:
        """Handles are dead; the kernel still has all that was written."""
        self.boots += 1
        self._death = None

    def power_cut(self, luck: Luck, torn: bool = True) -> None:
        """Back to what was synced, and to what else luck lets survive."""
        self.process_killed()
        survive = luck.randint(0, len(self._pending))
        names = dict(self._durable)
        for change in self._pending[:survive]:
            _apply(names, change)
        self._pending = []
        self._names = {path: inode for path, inode in names.items() if _has_parents(path, names)}
        for path in sorted(self._names):
            inode = self._names[path]
            if inode.content is not None and inode.content != inode.synced:
                inode.content = _survivor(inode.synced or b"", inode.content, luck, torn)
            inode.synced = inode.content
        self._durable, self._used_bytes = dict(self._names), None

    def flip_bit(self, path: str, luck: Luck) -> None:
        """The medium lies: one bit of a file changes, on disk and as read."""
        inode = self._names[path]
        if not inode.content:
            return
        place = luck.randrange(len(inode.content) * 8)
        inode.content = _flipped(inode.content, place)
        inode.synced = _flipped(inode.synced or b"", place)

    # ---- for those who look ---------------------------------------------------------------------

    def files(self) -> tuple[str, ...]:
        """Paths of all files, in order."""
        return tuple(sorted(p for p, inode in self._names.items() if inode.content is not None))

    def content(self, path: str) -> bytes | None:
        """What is in a file now, without asking the disk."""
        inode = self._names.get(path)
        return inode.content if inode is not None else None

    def durable(self, path: str) -> bytes | None:
        """What a power cut now would certainly leave of a file."""
        inode = self._durable.get(path)
        if inode is None or not _has_parents(path, self._durable):
            return None
        return inode.synced

    def if_names_survive(self, path: str) -> bytes | None:
        """What a power cut now leaves of a file if all names survive, and of contents only what was
        synced."""
        inode = self._names.get(path)
        return inode.synced if inode is not None else None

    def used_bytes(self) -> int:
        if self._used_bytes is None:
            self._used_bytes = sum(len(inode.content or b"") for inode in self._names.values())
        return self._used_bytes

    # ---- inside ---------------------------------------------------------------------------------

    def ask(self, operation: Operation, path: str) -> None:
        if self._death is not None:
            raise self._death
        if self.before is None:
            return
        try:
            self.before(operation, path)
        except Exception:
            raise
        except BaseException as death:
            self._death = death
            raise

    def write(self, path: str, inode: _Inode, content: bytes) -> int:
        """As much as there is room for, as a kernel does; with no room at all it is an error."""
        self.ask("write", path)
        used_bytes = self.used_bytes()
        free_bytes = max(0, self.capacity_bytes - used_bytes)
        if content and not free_bytes:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        taken = content[:free_bytes]
        inode.content = inode.content + taken if inode.content else taken
        self._used_bytes = used_bytes + len(taken)
        return len(taken)

    def _change(self, adds: dict[str, _Inode], removes: tuple[str, ...]) -> None:
        change = _Change(adds, removes)
        _apply(self._names, change)
        self._pending.append(change)
        self._used_bytes = None

    def _is_filled(self, directory: str) -> bool:
        return any(directory_of(name) == directory for name in self._names)

    def _file(self, path: str) -> bytes:
        inode = self._names.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if inode.content is None:
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return inode.content

    def _need_directory(self, path: str) -> None:
        if path and (path not in self._names or self._names[path].content is not None):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)


def _apply(names: dict[str, _Inode], change: _Change) -> None:
    for path in change.removes:
        names.pop(path, None)
    names.update(change.adds)


def _split(pending: list[_Change], directory: str) -> tuple[list[_Change], list[_Change]]:
    """What a directory's sync makes durable, and the rest. What came before on the same names goes
    with it: a name that was renamed away does not come back."""
    due: list[_Change] = []
    rest: list[_Change] = []
    names: set[str] = set()
    for change in reversed(pending):
        paths = change.paths()
        if not names.isdisjoint(paths) or directory in map(directory_of, paths):
            due.append(change)
            names.update(paths)
        else:
            rest.append(change)
    return due[::-1], rest[::-1]


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    if bit // 8 < len(changed):
        changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def _has_parents(path: str, names: dict[str, _Inode]) -> bool:
    parent = directory_of(path)
    return not parent or (parent in names and _has_parents(parent, names))


def _survivor(synced: bytes, written: bytes, luck: Luck, torn: bool) -> bytes:
    """Of unsynced content: nothing of it, all of it, or a part; its length may come before it."""
    fate = luck.random()
    if fate < 0.4 or (not torn and fate < 0.7):
        return synced
    if fate < 0.5 or not torn:
        return written
    start = len(synced) if written.startswith(synced) else 0
    cut = luck.randint(start, len(written))
    return written[:cut] + (bytes(len(written) - cut) if fate > 0.85 else b"")
