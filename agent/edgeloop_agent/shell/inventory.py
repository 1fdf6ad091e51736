"""What this device is: architecture, memory, disk, runtimes.

Invariants: the supervisor imports no runtime; a runtime's opsets are asked of the runtime itself
in a child process, once for each of its versions, and remembered in the state directory.
"""

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

from edgeloop_agent.shell.download import DISK_RESERVE_BYTES
from edgeloop_agent.shell.durable_files import write_durably
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_protocol.messages import Inventory, RuntimeInfo

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S: Final = 60.0
CACHE_NAME: Final = "runtimes.json"
_MEMINFO: Final = Path("/proc/meminfo")


class DeviceInventory:
    """Call it for the inventory as of now; any thread may."""

    def __init__(self, state_dir: Path, patch_formats: tuple[str, ...] = ()) -> None:
        self._state_dir = state_dir
        self._patch_formats = patch_formats
        self._runtimes = _runtimes(state_dir)

    def __call__(self) -> Inventory:
        return Inventory(
            agent_version=_version_of("edgeloop-agent") or "unknown",
            architecture=platform.machine(),
            python=platform.python_version(),
            runtimes=self._runtimes,
            patch_formats=self._patch_formats,
            memory_bytes=_available_memory_bytes(),
            disk_free_bytes=shutil.disk_usage(self._state_dir).free,
            cpu_count=os.cpu_count() or 1,
            memory_total_bytes=total_memory_bytes(),
            disk_total_bytes=_disk_total_bytes(self._state_dir),
        )


def _runtimes(state_dir: Path) -> tuple[RuntimeInfo, ...]:
    version = _version_of("onnxruntime")
    if version is None:
        return ()
    cache = state_dir / CACHE_NAME
    known = _read(cache)
    if known.get("version") != version:
        known = _probe()
        if known:
            _remember(state_dir, known)
    if not known:
        return ()
    return (
        RuntimeInfo(
            name="onnx",
            version=version,
            max_opset=known.get("max_opset"),
            max_ir_version=known.get("max_ir_version"),
        ),
    )


def _remember(state_dir: Path, known: dict[str, Any]) -> None:
    """Where the disk takes nothing, they are asked for again at the next start."""
    try:
        write_durably(OsDisk(state_dir), CACHE_NAME, json.dumps(known).encode())
    except OSError as error:
        logger.warning("the runtimes' versions are not remembered: %s", error)


def _probe() -> dict[str, Any]:
    """Empty when the runtime is installed but does not even import: then there is none."""
    try:
        probed = subprocess.run(
            [sys.executable, "-P", "-m", "edgeloop_agent.runner.probe"],
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        found: dict[str, Any] = json.loads(probed.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.error("onnxruntime is installed but does not run: %s", error)
        return {}
    return found


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
