"""Whether a device can run a version at all: its inventory against the manifest (DESIGN §4).

Invariants: pure; the agent checks again by itself. Memory and disk that lack *now* are waits of
the agent's; here only what a device can never satisfy makes it ineligible.
"""

from collections.abc import Callable
from typing import Final

from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory, RuntimeInfo

_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Two names of one architecture: `platform.machine()` differs between systems."""


def unfit(manifest: Manifest, inventory: Inventory) -> str:
    """Why the device cannot run it, in words; empty when it can."""
    checks: tuple[Callable[[Manifest, Inventory], str], ...] = (
        _architecture,
        _runtime,
        _memory,
    )
    return next((cause for check in checks if (cause := check(manifest, inventory))), "")


def _architecture(manifest: Manifest, inventory: Inventory) -> str:
    wanted = manifest.requires.architectures
    if not wanted or _canonical(inventory.architecture) in {_canonical(name) for name in wanted}:
        return ""
    return f"architecture {inventory.architecture}; the version is for {', '.join(wanted)}"


def _runtime(manifest: Manifest, inventory: Inventory) -> str:
    artifact = manifest.artifact
    runtimes = [runtime for runtime in inventory.runtimes if runtime.name == artifact.runtime]
    if not runtimes:
        had = ", ".join(runtime.name for runtime in inventory.runtimes) or "none"
        return f"no {artifact.runtime} runtime; the device has {had}"
    causes = [_too_old(manifest, runtime) for runtime in runtimes]
    return "" if "" in causes else causes[0]


def _too_old(manifest: Manifest, runtime: RuntimeInfo) -> str:
    artifact, named = manifest.artifact, f"{runtime.name} {runtime.version}"
    limits = (
        ("opset", artifact.opset, runtime.max_opset),
        ("IR version", artifact.ir_version, runtime.max_ir_version),
    )
    for what, needed, limit in limits:
        if needed is not None and limit is not None and needed > limit:
            return f"{named} reads {what} up to {limit}; the version needs {needed}"
    return ""


def _memory(manifest: Manifest, inventory: Inventory) -> str:
    needed, had = manifest.requires.memory_bytes, inventory.memory_bytes
    if needed <= had:
        return ""
    return f"{had} bytes of memory; the version needs {needed}"


def _canonical(architecture: str) -> str:
    name = architecture.lower()
    return _ALIASES.get(name, name)
