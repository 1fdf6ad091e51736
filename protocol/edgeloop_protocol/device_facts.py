"""What a selector may ask of a device: its labels, and what is built in.

    device        its id                          online      `yes`, while it is
    arch          aarch64, x86_64, armv7l, …      quarantine  why, while it is in quarantine
    agent         the agent's version             model.NAME  the version of a model that it runs
    python        of the agent                    slot.NAME   NAME@VERSION that a slot runs
    runtime       onnx, tflite, …                 sensor      what it declares to have
    memory, disk  bytes, of the device in all     cpus        how many

Invariants: pure; a key that is built in is never a label; what a device lacks has no values, what
it has several of (runtimes, sensors) has several.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from edgeloop_protocol.admission import architecture_names
from edgeloop_protocol.messages import Inventory, SlotReported

DEVICE_KEY: Final = "device"
MODEL_PREFIX: Final = "model."
SLOT_PREFIX: Final = "slot."
YES: Final = "yes"


class Facts(Protocol):
    """A device as decisions see it; `labels` are the effective ones."""

    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def online(self) -> bool: ...
    @property
    def quarantine(self) -> str: ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def slots(self) -> Mapping[str, SlotReported]: ...


UNKNOWN: Final = Inventory(
    agent_version="", architecture="", python="", memory_bytes=0, disk_free_bytes=0, cpu_count=0
)


@dataclass(frozen=True)
class Labelled:
    """A device of which no more is known than its id and its labels."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    online: bool = False
    quarantine: str = ""
    inventory: Inventory = UNKNOWN
    slots: Mapping[str, SlotReported] = field(default_factory=dict)


def is_built_in(key: str) -> bool:
    return key in _BUILT_IN or key.startswith((MODEL_PREFIX, SLOT_PREFIX))


def values_of(device: Facts, key: str) -> tuple[str, ...]:
    """What the device has under the key; empty: it has it not."""
    ask = _BUILT_IN.get(key)
    if ask is not None:
        return ask(device)
    if key.startswith(MODEL_PREFIX):
        return _versions(device, key.removeprefix(MODEL_PREFIX))
    if key.startswith(SLOT_PREFIX):
        slot = device.slots.get(key.removeprefix(SLOT_PREFIX))
        return (str(slot.champion),) if slot is not None and slot.champion is not None else ()
    value = device.labels.get(key)
    return () if value is None else (value,)


def _versions(device: Facts, model: str) -> tuple[str, ...]:
    champions = (slot.champion for slot in device.slots.values())
    return tuple(c.version for c in champions if c is not None and c.name == model)


def _said(value: str) -> tuple[str, ...]:
    return (value,) if value else ()


def _counted(value: int) -> tuple[str, ...]:
    return (str(value),) if value else ()


_BUILT_IN: Final[Mapping[str, Callable[[Facts], tuple[str, ...]]]] = {
    DEVICE_KEY: lambda device: (device.id,),
    "arch": lambda device: architecture_names(device.inventory.architecture),
    "agent": lambda device: _said(device.inventory.agent_version),
    "python": lambda device: _said(device.inventory.python),
    "runtime": lambda device: tuple(r.name for r in device.inventory.runtimes),
    "sensor": lambda device: device.inventory.sensors,
    "memory": lambda device: _counted(
        device.inventory.memory_total_bytes or device.inventory.memory_bytes
    ),
    "disk": lambda device: _counted(
        device.inventory.disk_total_bytes or device.inventory.disk_free_bytes
    ),
    "cpus": lambda device: _counted(device.inventory.cpu_count),
    "online": lambda device: (YES,) if device.online else (),
    "quarantine": lambda device: _said(device.quarantine),
}
