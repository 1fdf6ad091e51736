"""Which devices a rollout is for, and which of them can take its version.

Invariants: what is asked of labels and of inventories is asked once of each object; devices that
are alike may share them, so a large fleet costs little.
"""

from collections.abc import Sequence

from edgeloop_controller.core.rollout_types import DeviceView
from edgeloop_controller.core.selector import DEVICE_KEY, Selector
from edgeloop_protocol.admission import incompatible
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory


def matching(selector: Selector, devices: Sequence[DeviceView]) -> list[DeviceView]:
    """Devices may share their labels: what a selector says of labels is asked once of each."""
    if not selector.terms:
        return list(devices)
    if any(term.key == DEVICE_KEY for term in selector.terms):
        return [d for d in devices if selector.matches(d.id, d.labels)]
    said: dict[int, bool] = {}
    found = []
    for device in devices:
        holds = said.get(id(device.labels))
        if holds is None:
            holds = said[id(device.labels)] = selector.matches(device.id, device.labels)
        if holds:
            found.append(device)
    return found


class Unfit:
    """Why devices are not offered the version, asked once of each inventory: they may share it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._causes: dict[int, str] = {}

    def of(self, inventory: Inventory) -> str:
        cause = self._causes.get(id(inventory))
        if cause is None:
            cause = self._causes[id(inventory)] = _unfit(self._manifest, inventory)
        return cause


def _unfit(manifest: Manifest, inventory: Inventory) -> str:
    """Why a device is not offered the version, in words. Disk is the agent's to wait for."""
    problem = incompatible(manifest, inventory)
    if problem is not None:
        return str(problem)
    needed, had = manifest.requires.memory_bytes, inventory.memory_bytes
    return "" if needed <= had else f"{had} bytes of memory; the version needs {needed}"
