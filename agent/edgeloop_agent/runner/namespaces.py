"""Own namespaces: no network but an unplugged one, and a directory that cannot be written to.

Invariants: nothing of the machine's own mounts or network changes; who is not root takes a user
namespace for it, in which ids stay as they are; call it while the process has one thread.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

_NEWNS: Final = 0x00020000
_NEWUSER: Final = 0x10000000
_NEWNET: Final = 0x40000000

_MS_RDONLY: Final = 1
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19
_KEPT: Final = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME
"""Options of the original mount, which a user namespace may not take off. (Same bits as MS_.)"""


def enter(network: bool) -> None:
    """Leave the machine's mounts, and its network unless `network`. Raises OSError."""
    flags = _NEWNS if network else _NEWNS | _NEWNET
    try:
        _unshare(flags)
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        _unshare(flags | _NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def make_read_only(directory: Path) -> None:
    """For this process; only after `enter`. Raises OSError."""
    place = os.fsencode(directory)
    _mount(None, b"/", _MS_REC | _MS_SLAVE)  # what is mounted here must not show outside
    _mount(place, place, _MS_BIND)
    kept = os.statvfs(directory).f_flag & _KEPT
    _mount(None, place, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, target, None, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fsdecode(target))
