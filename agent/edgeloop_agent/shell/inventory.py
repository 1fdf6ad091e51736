"""What this device is: architecture, memory, disk, runtimes.

Invariants: the supervisor imports no runtime; it reads the names of the runtimes from installed
metadata, and asks each what it is in a child process, again only after a change of what is
installed; the answers are remembered in the state directory.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from edgeloop_agent import plugins
from edgeloop_agent.shell.download import DISK_RESERVE_BYTES
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Inventory, RuntimeInfo

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S: Final = 60.0
PROBE_MISSING: Final = 3
"""The exit code of runner.probe for a runtime that is not installed."""

CACHE_NAME: Final = "runtimes.json"
_MEMINFO: Final = Path("/proc/meminfo")


class DeviceInventory:
    """Call it for the inventory as of now; any thread may."""

    def __init__(
        self, state_dir: Path, patch_formats: tuple[str, ...] = (), sensors: tuple[str, ...] = ()
    ) -> None:
        self._state_dir = state_dir
        self._sensors = sensors
        self._patch_formats = patch_formats
        self._runtimes = _runtimes(state_dir)
        # Read once: whoever reads metadata again and again keeps something of it each time.
        self._version = _version_of("edgeloop-agent") or "unknown"

    def __call__(self) -> Inventory:
        return Inventory(
            agent_version=self._version,
            architecture=platform.machine(),
            python=platform.python_version(),
            runtimes=self._runtimes,
            patch_formats=self._patch_formats,
            sensors=self._sensors,
            memory_bytes=_available_memory_bytes(),
            disk_free_bytes=shutil.disk_usage(self._state_dir).free,
            cpu_count=os.cpu_count() or 1,
            memory_total_bytes=total_memory_bytes(),
            disk_total_bytes=_disk_total_bytes(self._state_dir),
        )


def _runtimes(state_dir: Path) -> tuple[RuntimeInfo, ...]:
    """Of each runtime's entry point, what its own probe says; none of those that do not import."""
    installed = _installed()
    remembered = _read(state_dir / CACHE_NAME)
    if remembered.get("installed") == installed:
        try:
            return tuple(map(RuntimeInfo.model_validate, remembered["runtimes"]))
        except (ValueError, KeyError, TypeError):
            logger.warning("%s is damaged: the runtimes are asked again", CACHE_NAME)
    found: list[RuntimeInfo] = []
    all_answered = True
    for name in plugins.names(plugins.RUNTIMES):
        try:
            found += _probed(name)
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            logger.error("the runtime %s is installed but does not run: %s", name, error)
            all_answered = False
    if all_answered:  # else it may do so next time
        document = {"installed": installed, "runtimes": [info.model_dump() for info in found]}
        _remember(state_dir, document)
    return tuple(found)


def _remember(state_dir: Path, known: dict[str, Any]) -> None:
    """Where the disk takes nothing, they are asked for again at the next start."""
    try:
        write_durably(OsDisk(state_dir), CACHE_NAME, json.dumps(known).encode())
    except OSError as error:
        logger.warning("the runtimes' versions are not remembered: %s", error)


def _installed() -> str:
    """Changes whenever any package is installed, removed or replaced; reads names alone."""
    names = {
        entry.name
        for place in map(Path, sys.path)
        if place.is_dir()
        for entry in place.glob("*.dist-info")
    }
    listed = "\n".join((platform.python_version(), *sorted(names)))
    return hashlib.sha256(listed.encode()).hexdigest()


def _probed(name: str) -> list[RuntimeInfo]:
    """Empty when what it wraps is not installed; raises when that does not even import."""
    probed = subprocess.run(
        [sys.executable, "-P", "-m", "edgeloop_agent.runner.probe", name],
        capture_output=True,
        timeout=PROBE_TIMEOUT_S,
        check=False,
    )
    if probed.returncode == PROBE_MISSING:
        return []
    if probed.returncode != 0:
        raise ValueError(probed.stderr.decode(errors="replace").strip()[-TEXT_MAX_CHARS:])
    return [RuntimeInfo.model_validate_json(probed.stdout.splitlines()[-1])]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def total_memory_bytes() -> int:
    """MemTotal of the kernel; 0 where there is no /proc."""
    return _meminfo_bytes("MemTotal:")


def _available_memory_bytes() -> int:
    """MemAvailable of the kernel; 0 where there is no /proc."""
    return _meminfo_bytes("MemAvailable:")


def _disk_total_bytes(directory: Path) -> int:
    """What this file system could ever give to versions: less than its size, by what the file
    system keeps for root and what the downloader leaves free."""
    disk = os.statvfs(directory)
    usable = (disk.f_blocks - (disk.f_bfree - disk.f_bavail)) * disk.f_frsize
    return max(1, usable - DISK_RESERVE_BYTES)


def _meminfo_bytes(name: str) -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
