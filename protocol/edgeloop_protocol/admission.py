"""Whether a device can run a version at all: its inventory against the manifest (DESIGN §4).

The controller asks before it offers, the agent asks again before it installs. Invariants: pure;
what cannot change without another device or another agent (the total of memory and disk, too)
is an `Incompatibility`; what may change by itself (free memory, free disk) is not judged here.
"""

from typing import Final, NamedTuple

from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory, RuntimeInfo

_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Two names of one architecture: `platform.machine()` differs between systems."""


class Incompatibility(NamedTuple):
    cause: str
    detail: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"


def incompatible(manifest: Manifest, inventory: Inventory) -> Incompatibility | None:
    """Why the device can never run the version as it is; None when it can."""
    return (
        _architecture(manifest, inventory)
        or _sensors(manifest, inventory)
        or _runtime(manifest, inventory)
        or _size(manifest, inventory)
    )


def wanted_disk_bytes(manifest: Manifest) -> int:
    """What a version takes of the disk: what it says, and its artifact at least."""
    return max(manifest.requires.disk_bytes, manifest.artifact.size_bytes)


def _size(manifest: Manifest, inventory: Inventory) -> Incompatibility | None:
    """No wait for free memory or disk ends where there is not as much in all."""
    for cause, wanted, total in (
        (
            "needs more memory than the device has",
            manifest.requires.memory_bytes,
            inventory.memory_total_bytes,
        ),
        ("larger than the disk", wanted_disk_bytes(manifest), inventory.disk_total_bytes),
    ):
        if 0 < total < wanted:
            return Incompatibility(cause, f"{wanted} bytes wanted, {total} there in all")
    return None


def _architecture(manifest: Manifest, inventory: Inventory) -> Incompatibility | None:
    wanted = manifest.requires.architectures
    if not wanted or _canonical(inventory.architecture) in {_canonical(name) for name in wanted}:
        return None
    return Incompatibility(
        "wrong architecture",
        f"the device is {inventory.architecture}, the version is for {', '.join(wanted)}",
    )


def _sensors(manifest: Manifest, inventory: Inventory) -> Incompatibility | None:
    lacking = [name for name in manifest.requires.sensors if name not in inventory.sensors]
    if not lacking:
        return None
    had = ", ".join(inventory.sensors) or "none"
    return Incompatibility(
        "no such sensor", f"the version needs {', '.join(lacking)}, the device declares {had}"
    )


def _runtime(manifest: Manifest, inventory: Inventory) -> Incompatibility | None:
    wanted = manifest.artifact.runtime
    runtimes = [runtime for runtime in inventory.runtimes if runtime.name == wanted]
    if not runtimes:
        had = ", ".join(runtime.name for runtime in inventory.runtimes) or "none"
        return Incompatibility("no runtime", f"the version needs {wanted}, the device has {had}")
    problems = [_too_old(manifest, runtime) for runtime in runtimes]
    return None if None in problems else problems[0]


def _too_old(manifest: Manifest, runtime: RuntimeInfo) -> Incompatibility | None:
    artifact = manifest.artifact
    for what, needed, limit in (
        ("opset", artifact.opset, runtime.max_opset),
        ("IR version", artifact.ir_version, runtime.max_ir_version),
    ):
        if needed is not None and limit is not None and needed > limit:
            return Incompatibility(
                f"{what} too new",
                f"{runtime.name} {runtime.version} reads {what} up to {limit}; "
                f"the version needs {needed}",
            )
    return None


def architecture_names(architecture: str) -> tuple[str, ...]:
    """All names of one architecture, the usual one first; none of an unknown one."""
    usual = _canonical(architecture)
    aliases = (name for name, of in _ALIASES.items() if of == usual)
    return (usual, *aliases) if usual else ()


def _canonical(architecture: str) -> str:
    name = architecture.lower()
    return _ALIASES.get(name, name)
