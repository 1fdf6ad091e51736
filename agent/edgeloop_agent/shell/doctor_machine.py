"""The doctor's checks of the device itself: files, disk, clock, runtimes, slots."""

import contextlib
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig, JsonlSink, ReplaySource, SocketSource
from edgeloop_agent.shell.download import DISK_RESERVE_BYTES
from edgeloop_agent.shell.durable_files import ASIDE_SUFFIX, write_durably
from edgeloop_agent.shell.finding import Finding, failed, fine, warning
from edgeloop_agent.shell.inventory import DeviceInventory
from edgeloop_agent.shell.lock import is_locked
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.time_floor import EARLIEST_S, LATEST_S, read_floor
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import MIB

DISK_COMFORTABLE_BYTES: Final = 256 * MIB


def permissions(config_path: Path, config: AgentConfig) -> Iterator[Finding]:
    mode = config_path.stat().st_mode
    if config.broker.password is not None and mode & (stat.S_IRGRP | stat.S_IROTH):
        yield warning(
            "permissions",
            f"{config_path} holds the broker's password and others can read it",
            f"chmod 600 {config_path}",
        )
    else:
        yield fine("permissions", f"{config_path} has mode {stat.S_IMODE(mode):o}")


def state_dir(config: AgentConfig) -> Iterator[Finding]:
    path = Path(config.state_dir)
    who = f"uid {os.geteuid()}"
    if not path.exists():
        parent = next(above for above in path.parents if above.exists())
        if os.access(parent, os.W_OK):
            yield fine("state_dir", f"{path} does not exist yet; the agent makes it")
        else:
            yield failed(
                "state_dir",
                f"{path} does not exist and {who} may not make it in {parent}",
                f"mkdir -p {path} and chown it to the agent's user",
            )
        return
    try:
        _write_and_remove(path)
    except OSError as error:
        yield failed(
            "state_dir",
            f"{path} takes no file from {who}: {error.strerror}",
            "chown it to the agent's user; where the disk is full or read-only, mend that first",
        )
        return
    runs = "an agent runs on it" if is_locked(path) else "no agent runs on it now"
    if path.stat().st_mode & stat.S_IWOTH:
        yield warning("state_dir", f"everybody may write in {path}; {runs}", f"chmod o-w {path}")
    else:
        yield fine("state_dir", f"{path} can be written and synced by {who}; {runs}")


def _write_and_remove(path: Path) -> None:
    own = f"doctor-{os.getpid()}"
    disk = OsDisk(path)
    try:
        write_durably(disk, own, b"doctor")
    finally:
        for left in (own, own + ASIDE_SUFFIX):
            with contextlib.suppress(OSError):
                disk.remove(left)


def disk(config: AgentConfig) -> Iterator[Finding]:
    there = next(
        it for it in (Path(config.state_dir), *Path(config.state_dir).parents) if it.exists()
    )
    free = shutil.disk_usage(there).free
    inodes = os.statvfs(there)
    words = f"{free // MIB} MiB free"
    mend = f"free space on the disk of {there}; `df -h {there}` shows it"
    if free < DISK_RESERVE_BYTES:
        keep = DISK_RESERVE_BYTES // MIB
        yield failed("disk", f"{words}: no model is installed below {keep} MiB", mend)
    elif inodes.f_files and not inodes.f_favail:
        yield failed("disk", f"{words}, but no inode is left", f"remove files: `df -i {there}`")
    elif free < DISK_COMFORTABLE_BYTES:
        yield warning("disk", f"{words}: little for models", mend)
    else:
        yield fine("disk", words)


def clock(config: AgentConfig, clock: Clock) -> Iterator[Finding]:
    now, floor = clock.wall(), read_floor(Path(config.state_dir))
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    mend = "set the clock: run an NTP client (`timedatectl set-ntp true`), check the RTC's battery"
    if now < EARLIEST_S:
        yield failed("clock", f"it is {said} here: before this agent was made", mend)
    elif now > LATEST_S:
        yield failed("clock", f"it is {said} here: that cannot be", mend)
    elif floor is not None and now < floor:
        late_s = floor - now
        yield failed(
            "clock",
            f"it is {said} here: {late_s:.0f} s before the last time that the controller said",
            mend,
        )
    else:
        yield fine("clock", f"it is {said} here")


def runtimes(config: AgentConfig) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="edgeloop-doctor-") as nowhere:
        path = Path(config.state_dir)
        found = DeviceInventory(path if path.is_dir() else Path(nowhere))().runtimes
    if found:
        yield fine("runtimes", ", ".join(f"{it.name} {it.version}" for it in found))
        return
    machine = platform.machine()
    yield failed(
        "runtimes",
        f"no runtime for models is installed or runs on this {machine}: no version is ever "
        "admitted here",
        "pip install 'edgeloop-agent[onnx]'"
        if not machine.startswith("armv7")
        else "there is no ONNX wheel for armv7; see the table in the agent's README",
    )


def slots(config: AgentConfig) -> Iterator[Finding]:
    for name, slot in config.slots.items():
        problem = _source_problem(slot.source) or _sink_problem(slot.sink)
        if problem:
            yield warning(f"slot {name}", *problem)
        else:
            yield fine(f"slot {name}", f"{slot.source.kind} in, {slot.sink.kind} out")


def _source_problem(source: object) -> tuple[str, str] | None:
    if isinstance(source, ReplaySource) and not os.access(source.path, os.R_OK):
        return f"its source {source.path} cannot be read", "put the file there, or chmod it"
    if isinstance(source, SocketSource) and not (
        source.path.exists() and stat.S_ISSOCK(source.path.stat().st_mode)
    ):
        return (
            f"nobody listens on its source {source.path} yet",
            "start what feeds the slot; the runner tries again by itself",
        )
    return None


def _sink_problem(sink: object) -> tuple[str, str] | None:
    if isinstance(sink, JsonlSink) and not os.access(sink.path.parent, os.W_OK):
        return (
            f"its sink {sink.path} cannot be written",
            f"make {sink.path.parent}, and let the agent's user write there",
        )
    return None
