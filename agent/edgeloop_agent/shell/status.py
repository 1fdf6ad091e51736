"""status.json: what `edgeloop-agent status` and a testbed may read, at most a second old.

Shape (stable): device_id, pid, running, epoch, revision, broker_connected, trust (in words), slots
(as reported on the wire), outbox {epoch, next_sequence, held, held_bytes, dropped, merged,
sketches_shed, samples_dropped, events_dropped (both among dropped), epochs[]}, budget, bytes_up,
rejected_messages (malformed), messages_dropped (the queue was full), stale_desired (a revision that
was not newer), confinement (by slot: done and lacking, in words), updated_at. `epochs` are the
newest EPOCHS_SHOWN_MAX.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgeloop_agent.core.device import Device
from edgeloop_agent.errors import NotRunningError, OutboxUnavailableError
from edgeloop_agent.ports import Traffic
from edgeloop_agent.runner_protocol import ConfinedLine
from edgeloop_agent.shell.lock import is_locked
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.clock import Clock

FILE_NAME: Final = "status.json"
INTERVAL_S: Final = 1.0
EPOCHS_SHOWN_MAX: Final = 100
"""The newest; `held`, `held_bytes` and `dropped` are over all that the outbox remembers."""


def _no_runners() -> Mapping[str, ConfinedLine]:
    return {}


class StatusFile:
    def __init__(
        self,
        state_dir: Path,
        device_id: str,
        telemetry: Telemetry,
        clock: Clock,
        confinement: Callable[[], Mapping[str, ConfinedLine]] = _no_runners,
        trust: str = "",
    ) -> None:
        self._path = state_dir / FILE_NAME
        self._device_id = device_id
        self._telemetry = telemetry
        self._clock = clock
        self._confinement = confinement
        self._trust = trust
        self._written_at = float("-inf")

    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None:
        now = self._clock.monotonic()
        if not stopped and now - self._written_at < INTERVAL_S:
            return
        self._written_at = now
        aside = self._path.with_suffix(".json.tmp")
        try:
            document = self._document(device, traffic, stopped)
            aside.write_text(json.dumps(document, indent=1), encoding="utf-8")
            aside.replace(self._path)
        except (OSError, OutboxUnavailableError):
            return  # a full disk: the status is not worth an agent

    def _document(self, device: Device, traffic: Traffic, stopped: bool) -> dict[str, Any]:
        telemetry = self._telemetry
        epochs, totals = telemetry.outbox.counts(EPOCHS_SHOWN_MAX), telemetry.outbox.totals()
        current = epochs[-1]
        return {
            "device_id": self._device_id,
            "pid": os.getpid(),
            "running": not stopped,
            "epoch": current.epoch,
            "revision": device.revision,
            "broker_connected": device.connected and not stopped,
            "trust": self._trust,
            "slots": [slot.model_dump(mode="json") for slot in device.reported()],
            "outbox": {
                "epoch": current.epoch,
                "next_sequence": current.appended + 1,
                **asdict(totals),
                "epochs": [asdict(epoch) for epoch in epochs],
            },
            "budget": {
                "left_bytes": round(telemetry.budget_left_bytes()),
                "samples_withheld": telemetry.samples_withheld,
                "sketches_withheld": telemetry.sketches_withheld,
                "too_large": telemetry.too_large,
                "unwritten": telemetry.unwritten,
            },
            **asdict(traffic),
            "stale_desired": device.stale_desired,
            "confinement": {
                slot: told.model_dump(mode="json", exclude={"kind"})
                for slot, told in self._confinement().items()
            },
            "updated_at": self._clock.wall(),
        }


def read_status(state_dir: Path) -> dict[str, Any]:
    """The last status, with `running` as the lock says. Raises NotRunningError if there is none."""
    try:
        document: dict[str, Any] = json.loads((state_dir / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotRunningError(
            f"no agent has left a status in {state_dir}: start one with `edgeloop-agent run`"
        ) from error
    document["running"] = is_locked(state_dir)
    return document


def in_one_line(device: Device) -> str:
    """For whoever looks at the process from outside."""
    slots = ", ".join(
        f"{slot.slot}: {slot.state} {slot.champion or 'nothing yet'}" for slot in device.reported()
    )
    return f"{'connected' if device.connected else 'not connected'}; {slots}"
