"""A small ext4 file system in a file, which can be copied as a power cut would leave it.

Mounted with `noauto_da_alloc` and `data=writeback`, so that ext4 does not make up for an fsync that
the agent forgot, and nothing is written because time passes. Needs root and a loop device.

Invariants: a copy holds what had reached the block device at one moment, and nothing of what was
only in the page cache. Who unmounts has unmounted: mounts are made `in_private` only, because
whoever enters a mount namespace of his own (each confined runner on the machine does) takes a copy
of all mounts, and keeps the file system alive that its owner believes gone.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeloop_protocol.limits import MIB
from edgeloop_simulators.errors import SimulatorError

SIZE_BYTES: Final = 24 * MIB
OPTIONS: Final = "noauto_da_alloc,data=writeback,commit=3600,noatime"
SETTLES_WITHIN_S: Final = 10.0
_NEWNS: Final = 0x00020000
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_IN_FLIGHT: Final = 8
"""Place in /sys/block/*/stat (Documentation/block/stat.rst of the kernel)."""


def why_not() -> str:
    """What this machine lacks for power cuts, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    lacking = [
        name for name in ("mkfs.ext4", "e2fsck", "losetup", "mount") if shutil.which(name) is None
    ]
    if lacking:
        return f"{', '.join(lacking)} not found: install e2fsprogs, mount and util-linux"
    if not Path("/dev/loop-control").exists():
        return "this kernel has no loop devices"
    return ""


def make_image(file: Path) -> None:
    with file.open("wb") as image:
        image.truncate(SIZE_BYTES)
    _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file))


@contextmanager
def in_private() -> Iterator[None]:
    """What this thread mounts inside is seen by it and its children alone, and goes with them.
    Raises OSError where the kernel refuses."""
    directory = Path.cwd()
    outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    try:
        _call("unshare", _NEWNS)
        try:
            _call("mount", None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
            yield
        finally:
            _call("setns", outside, _NEWNS)  # which leads to the root directory
            os.chdir(directory)
    finally:
        os.close(outside)


class Mounted:
    """Only `in_private`."""

    def __init__(self, file: Path, at: Path) -> None:
        self.file, self.at = file, at
        at.mkdir(exist_ok=True)
        self._device = _run("losetup", "--find", "--show", str(file)).strip()
        try:
            _run("mount", "-t", "ext4", "-o", OPTIONS, self._device, str(at))
        except SimulatorError:
            _run("losetup", "--detach", self._device)
            raise

    def unmount(self) -> None:
        _run("umount", str(self.at))
        _run("losetup", "--detach", self._device)

    def commit_metadata(self) -> None:
        """As another program's fsync does: names and sizes are journalled, contents are not."""
        with (self.at / "other-program").open("ab", buffering=0) as file:
            file.write(b".")
            os.fsync(file.fileno())

    def copy_to(self, copy: Path) -> None:
        """Whoever writes here must have been stopped."""
        deadline = time.monotonic() + SETTLES_WITHIN_S
        while True:
            before = self._traffic()
            _copy(self.file, copy)
            if before == self._traffic() and before[_IN_FLIGHT] == 0:
                return
            if time.monotonic() > deadline:
                raise SimulatorError(f"{self._device} does not come to rest")

    def _traffic(self) -> list[int]:
        stat = Path("/sys/block") / Path(self._device).name / "stat"
        return [int(number) for number in stat.read_text().split()]


@contextmanager
def mounted(file: Path, at: Path) -> Iterator[Mounted]:
    image = Mounted(file, at)
    try:
        yield image
    finally:
        image.unmount()


def checked(file: Path) -> str:
    """What e2fsck says of a copy of it whose journal has been played; empty: it is sound."""
    played = file.with_suffix(".fsck")
    shutil.copyfile(file, played)
    try:
        for options in (("-fy", "-E", "journal_only"), ("-fn",)):
            done = subprocess.run(
                ["e2fsck", *options, str(played)], capture_output=True, text=True, check=False
            )
        return "" if done.returncode == 0 else done.stdout.strip()
    finally:
        played.unlink()


def _copy(file: Path, copy: Path) -> None:
    with file.open("rb") as source, copy.open("wb") as target:
        left = SIZE_BYTES
        while left:
            left -= os.sendfile(target.fileno(), source.fileno(), None, left)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SimulatorError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
