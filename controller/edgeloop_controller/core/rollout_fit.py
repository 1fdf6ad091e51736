"""Which devices a rollout is for, and which of them can take its version.

Invariants: what is asked of labels and of inventories is asked once of each object; devices that
are alike may share them, so a large fleet costs little.
"""

from collections.abc import Mapping, Sequence

from edgeloop_controller.core.rollout_types import DeviceView
from edgeloop_controller.core.selector import Selector
from edgeloop_protocol.admission import incompatible
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory


def by_id(devices: Sequence[DeviceView] | Mapping[str, DeviceView]) -> Mapping[str, DeviceView]:
    return devices if isinstance(devices, Mapping) else {device.id: device for device in devices}


def matching(selector: Selector, views: Mapping[str, DeviceView]) -> Mapping[str, DeviceView]:
    """Those of `views` that the selector is for, by id."""
    if not selector.terms:
        return views
    if not selector.asks_labels_only:
        return {d.id: d for d in views.values() if selector.matches(d)}
    said: dict[int, bool] = {}
    found = {}
    for device in views.values():
        holds = said.get(id(device.labels))
        if holds is None:
            holds = said[id(device.labels)] = selector.matches(device)
        if holds:
            found[device.id] = device
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
