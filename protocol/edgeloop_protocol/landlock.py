"""Landlock by its three system calls: a thread, and all that it starts, gives up rights for good.

Invariants: only rights that this kernel knows are asked about; `restrict` confines writing to what
is named and leaves reading alone, `hide` takes both from what is named; restrict the only thread of
a process, for others would stay free. Imports the standard library only.
"""

import ctypes
import os
import platform
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_SAME_NUMBERS: Final = frozenset(
    {"x86_64", "amd64", "i686", "i386", "aarch64", "arm64", "armv6l", "armv7l", "armv8l"}
    | {"riscv64", "ppc64le", "s390x", "loongarch64"}
)
"""Architectures where the calls have these numbers."""

_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
_READS: Final = EXECUTE | READ_FILE | READ_DIR
_WRITES: Final = (
    (1, WRITE_FILE),
    (1, 0b1_1111_1111 << 4),  # REMOVE_DIR .. MAKE_SYM
    (2, 1 << 13),  # REFER: rename or link into another directory
    (3, 1 << 14),  # TRUNCATE
)
"""(first ABI that knows it, right)."""
_ON_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14
_TCP_ABI: Final = 4
_TCP: Final = 0b11  # bind and connect
_SCOPED_ABI: Final = 6
_SIGNALS_AND_ABSTRACT_SOCKETS: Final = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The newest version of the interface that this kernel speaks; 0: none."""
    if platform.machine().lower() not in _SAME_NUMBERS:
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(writable: Iterable[Path], tcp: bool) -> int:
    """Allow writing beneath (or to) `writable` only, and TCP if `tcp`; returns the ABI.

    From ABI 6 on, signals to others end here too. Raises OSError when the kernel does not do it.
    """
    version = abi()
    writes = _writes(version)
    _enforce(version, writes, writable, tcp)
    return version


def hide(hidden: Iterable[Path], shown: Iterable[Path]) -> int:
    """Take reading, writing and executing of `hidden` and what is beneath, but for `shown`, inside
    of which what is hidden stays hidden; returns the ABI. Of a directory above a hidden one, what
    is in it now stays as it is, and neither its list nor what comes to it later is seen. No process
    outside can be looked into (ptrace).

    Raises OSError when the kernel does not do it.
    """
    version = abi()
    gone = {path.resolve() for path in hidden}
    allowed = [*_without(Path("/"), gone)]
    for path in shown:
        inside = path.resolve()
        allowed += _without(inside, {one for one in gone if inside in one.parents})
    _enforce(version, _READS | _writes(version), allowed, tcp=True)
    return version


def _without(path: Path, gone: Set[Path]) -> Iterator[Path]:
    """What together is all beneath `path` but what is gone."""
    if path in gone:
        return
    if not any(path in one.parents for one in gone):
        yield path
        return
    for child in _children(path):
        yield from _without(child, gone)


def _children(directory: Path) -> list[Path]:
    """Without links: one may lead to what is gone, and what it leads to has a place of its own."""
    try:
        return [child for child in directory.iterdir() if not child.is_symlink()]
    except OSError:
        return []


def _writes(version: int) -> int:
    return sum(right for known_from, right in _WRITES if version >= known_from)


def _enforce(version: int, handled: int, allowed: Iterable[Path], tcp: bool) -> None:
    """What is `handled` is allowed beneath `allowed` only."""
    rules = _Ruleset(handled, 0, 0)
    if version >= _TCP_ABI and not tcp:
        rules.handled_access_net = _TCP
    if version >= _SCOPED_ABI:
        rules.scoped = _SIGNALS_AND_ABSTRACT_SOCKETS
    ruleset = _call(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    try:
        for path in allowed:
            _allow(ruleset, path, handled)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def holds_tcp(version: int) -> bool:
    """Does this ABI know of TCP at all?"""
    return version >= _TCP_ABI


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """A path that is not there needs no rights."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathBeneath(rights if path.is_dir() else rights & _ON_FILES, descriptor)
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
