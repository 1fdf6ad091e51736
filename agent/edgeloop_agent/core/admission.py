"""May this device run this version? The manifest against the offer and against the inventory.

Invariant: what may change by itself (free memory, free disk) makes an install wait; what cannot
change without a new device or a new agent (architecture, runtime, opset, memory and disk in all)
refuses it.
"""

from dataclasses import dataclass
from enum import Enum, auto

from edgeloop_protocol.admission import incompatible, wanted_disk_bytes
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory, Offer


class Admission(Enum):
    ADMITTED = auto()
    WAIT = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    admission: Admission
    cause: str = ""
    detail: str = ""


ADMITTED = Verdict(Admission.ADMITTED)


def check(manifest: Manifest, offer: Offer, inventory: Inventory, on_disk: bool) -> Verdict:
    """`check_offer`, then `check_inventory`."""
    verdict = check_offer(manifest, offer)
    if verdict.admission is not Admission.ADMITTED:
        return verdict
    return check_inventory(manifest, inventory, on_disk)


def check_offer(manifest: Manifest, offer: Offer) -> Verdict:
    """A manifest that says something else than the offer that named it is never installed."""
    said = (manifest.name, manifest.version, manifest.artifact.digest, manifest.artifact.size_bytes)
    offered = (offer.name, offer.version, offer.artifact_digest, offer.artifact_size_bytes)
    if said == offered:
        return ADMITTED
    return _refused("manifest contradicts the offer", f"manifest: {said}, offer: {offered}")


def check_inventory(manifest: Manifest, inventory: Inventory, on_disk: bool) -> Verdict:
    """`on_disk`: the artifact is there already, so that going back never waits for disk."""
    problem = incompatible(manifest, inventory)
    if problem is not None:
        return _refused(problem.cause, problem.detail)
    memory_bytes = manifest.requires.memory_bytes
    if memory_bytes > inventory.memory_bytes:
        return _wait(f"memory: {inventory.memory_bytes} bytes free, {memory_bytes} wanted")
    disk_bytes = wanted_disk_bytes(manifest)
    if not on_disk and disk_bytes > inventory.disk_free_bytes:
        return _wait(f"disk: {inventory.disk_free_bytes} bytes free, {disk_bytes} wanted")
    return ADMITTED


def _refused(cause: str, detail: str) -> Verdict:
    return Verdict(Admission.REFUSED, cause, detail)


def _wait(cause: str) -> Verdict:
    return Verdict(Admission.WAIT, cause)
