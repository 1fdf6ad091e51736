"""Each slot as an update entity of Home Assistant, over MQTT (its discovery, its JSON states).

Invariants: said when it changed and anew on every connect, retained; what the broker does not take
is said at the next turn; these are hints for people: nothing is ever read back, and no command is
taken, because what runs is decided by the controller's rollouts.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.device import Device
from edgeloop_agent.ports import Status, Traffic
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import SlotReported

PublishRetained = Callable[[str, bytes], bool]
SUMMARY_MAX_CHARS: Final = 255
"""Home Assistant refuses a longer one."""

STEPS: Final = (
    SlotState.VERIFIED,
    SlotState.DOWNLOADING,
    SlotState.STAGED,
    SlotState.SELF_TEST,
    SlotState.ACTIVATING,
    SlotState.PROBATION,
)


class HomeAssistantStatus:
    """A Status that tells Home Assistant what the one inside tells the device."""

    def __init__(self, inside: Status, config: AgentConfig, publish: PublishRetained) -> None:
        assert config.home_assistant is not None
        self._inside = inside
        self._device_id = config.device_id
        self._prefix = config.home_assistant.discovery_prefix
        self._publish = publish
        self._told: dict[str, SlotReported] = {}

    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None:
        self._inside.refresh(device, traffic, stopped)
        if not device.connected:
            self._told.clear()
            return
        for slot in device.reported():
            told = self._told.get(slot.slot)
            if told is not slot and self._tell(slot, is_new=told is None):
                self._told[slot.slot] = slot

    def _tell(self, slot: SlotReported, is_new: bool) -> bool:
        entity = re.sub(r"[^a-zA-Z0-9_-]", "_", f"edgeloop_{self._device_id}_{slot.slot}")
        base = f"{self._prefix}/update/{entity}"
        if is_new and not self._say(f"{base}/config", self._entity(entity, base, slot.slot)):
            return False
        return self._say(f"{base}/state", state_of(slot))

    def _say(self, topic: str, document: dict[str, Any]) -> bool:
        return self._publish(topic, json.dumps(document).encode())

    def _entity(self, entity: str, base: str, slot: str) -> dict[str, Any]:
        return {
            "name": f"Model in {slot}",
            "unique_id": entity,
            "state_topic": f"{base}/state",
            "device": {
                "identifiers": [f"edgeloop_{self._device_id}"],
                "name": self._device_id,
                "manufacturer": "Edgeloop",
            },
        }


def state_of(slot: SlotReported) -> dict[str, Any]:
    installed = str(slot.champion) if slot.champion else None
    latest = str(slot.candidate) if slot.candidate else installed
    steps = len(STEPS) + 1
    percentage = (
        round(100 * (STEPS.index(slot.state) + 1) / steps)
        if slot.candidate and slot.state in STEPS
        else None
    )
    summary = slot.waiting
    if not summary and slot.refused:
        summary = f"refused {slot.refused.version}: {slot.refused.cause}"
    return {
        "installed_version": installed,
        "latest_version": latest,
        "in_progress": slot.candidate is not None,
        "update_percentage": percentage,
        "release_summary": summary[:SUMMARY_MAX_CHARS] or None,
    }
