"""A handful of real agent processes among the live devices: `edgeloop-agent run`, as installed.

Invariant: `close` leaves none behind; each has a state directory and a log of its own.
"""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeloop.toml_text import toml_text
from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.fleet import Process, program

STOP_TIMEOUT_S: Final = 10.0
RATE_HZ: Final = 10.0


class RealAgents:
    """They replay `examples` (an NPY file whose rows fit the models), over and over."""

    def __init__(
        self,
        directory: Path,
        controller_url: str,
        broker: BrokerAddress,
        examples: Path,
        labels: Mapping[str, str],
    ) -> None:
        self._directory = directory
        self._common = {
            "controller_url": controller_url,
            "trust": {"unsigned": True},
            "plain": True,
            "broker": {key: value for key, value in vars(broker).items() if value is not None},
            "labels": {**labels, "class": "real"},
            "slots": {
                "main": {"source": {"kind": "replay", "path": str(examples), "rate_hz": RATE_HZ}}
            },
        }
        self._agents: dict[str, Process] = {}

    def start(self, device_id: str) -> None:
        at = self._directory / device_id
        at.mkdir(parents=True)
        configuration = {**self._common, "device_id": device_id, "state_dir": str(at / "state")}
        config = at / "agent.toml"
        config.write_text(toml_text(configuration), encoding="utf-8")
        command = [program("edgeloop-agent"), "run", "--config", str(config)]
        self._agents[device_id] = Process(f"agent {device_id}", command, at)

    def __len__(self) -> int:
        return len(self._agents)

    def check(self) -> None:
        """Raises FleetError if one ended by itself."""
        for agent in self._agents.values():
            agent.check()

    def champions(self) -> dict[str, str]:
        """Device → `name@version` that it runs, by its own status; without those that run none."""
        found = {}
        for device_id in self._agents:
            try:
                status = json.loads((self._directory / device_id / "state/status.json").read_text())
                champion = status["slots"][0]["champion"]
            except (OSError, ValueError, LookupError):
                continue
            if champion:
                found[device_id] = f"{champion['name']}@{champion['version']}"
        return found

    def close(self) -> None:
        for agent in self._agents.values():
            agent.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for agent in self._agents.values():
            agent.end(deadline)
