"""The processes of a run: one controller, and a real agent for each device.

Invariants: each process runs in a directory of its own, in a session of its own, with its log in a
file; readiness is waited for by condition, never by time; `stop` leaves none of them behind, and
if the testbed itself is killed the kernel ends them (`launch`).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edgeloop.toml_text import toml_text
from edgeloop_simulators import launch
from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.scenario import Scenario

HOST: Final = "127.0.0.1"
STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_CHARS: Final = 1500


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Process:
    """One started program."""

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        self.name, self.directory = name, directory
        self.log = directory / "log.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGELOOP_")}
        wrapped = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                wrapped,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises FleetError, with the end of its log, if it ended by itself."""
        code = self.popen.poll()
        if code is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARS:]
            raise FleetError(f"{self.name} ended with code {code}; the end of {self.log}:\n{tail}")

    def signal(self, number: signal.Signals) -> None:
        """To the process alone; its children follow it by themselves."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic); then kill it with all of its session."""
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


class Fleet:
    """Start with `start_controller`, add agents, and always `stop` (also after an exception)."""

    def __init__(self, directory: Path, scenario: Scenario) -> None:
        self._directory, self._scenario = directory, scenario
        self._http_port, self._broker_port = free_ports(2)
        self.url = f"http://{HOST}:{self._http_port}"
        self.data_dir = directory / "controller" / "data"
        self.policies_dir = directory / "controller" / "policies"
        self._controller: Process | None = None
        self._agents: dict[str, Process] = {}

    @property
    def database(self) -> Path:
        return self.data_dir / "edgeloop.sqlite"

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self._agents)

    def start_controller(
        self, policy: Mapping[str, Any] | None, ready: Callable[[], bool], deadline_s: float
    ) -> None:
        """Write its configuration and its policy, if any; start it, wait for `ready`."""
        terms = self._scenario.controller
        self.policies_dir.mkdir(parents=True)
        self.data_dir.mkdir()
        if policy is not None:
            policy_file = self.policies_dir / f"{policy['name']}.toml"
            policy_file.write_text(toml_text(policy), encoding="utf-8")
        configuration = {
            "data_dir": str(self.data_dir),
            "tick_s": terms.tick_s,
            "http": {"host": HOST, "port": self._http_port},
            "broker": {"embedded": True, "host": HOST, "port": self._broker_port},
            "drift": {"interval_s": terms.drift_s, "raise_after": terms.raise_after},
            "retraining": {
                "policies_dir": str(self.policies_dir),
                "interval_s": terms.retrain_s,
            },
        }
        config = self.data_dir.parent / "controller.toml"
        config.write_text(toml_text(configuration), encoding="utf-8")
        command = [program("edgeloop"), "serve", "--config", str(config)]
        self._controller = Process("the controller", command, self.data_dir.parent)
        deadline = time.monotonic() + deadline_s
        while not ready():
            self._controller.check()
            if time.monotonic() > deadline:
                raise FleetError(f"the controller is not ready after {deadline_s:.0f} s")
            time.sleep(0.1)

    def start_agent(self, device_id: str, socket_path: Path, labels: Mapping[str, str]) -> None:
        directory = self._directory / "devices" / device_id
        directory.mkdir(parents=True)
        telemetry = self._scenario.telemetry
        configuration = {
            "device_id": device_id,
            "state_dir": str(directory / "state"),
            "controller_url": self.url,
            "labels": dict(labels),
            "broker": {"host": HOST, "port": self._broker_port},
            "telemetry": telemetry.model_dump(),
            "slots": {
                "main": {
                    "source": {"kind": "socket", "path": str(socket_path)},
                    "sink": {"kind": "socket"},
                }
            },
        }
        config = directory / "agent.toml"
        config.write_text(toml_text(configuration), encoding="utf-8")
        command = [program("edgeloop-agent"), "run", "--config", str(config)]
        self._agents[device_id] = Process(f"agent {device_id}", command, directory)

    def check(self) -> None:
        """Raises FleetError if the controller or an agent ended by itself."""
        for process in self._processes():
            process.check()

    def outbox_of(self, device_id: str) -> Path:
        return self._directory / "devices" / device_id / "state" / "outbox.sqlite"

    def stop_agents(self) -> None:
        """A clean stop of every agent, at once; those that do not go are killed."""
        _stop(list(self._agents.values()))

    def stop(self) -> None:
        self.stop_agents()
        _stop([self._controller] if self._controller else [])

    def _processes(self) -> list[Process]:
        return [p for p in (self._controller, *self._agents.values()) if p is not None]


def _stop(processes: list[Process]) -> None:
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for process in processes:
        process.end(deadline)


def program(name: str) -> str:
    """The console script of the environment that the testbed itself runs in."""
    return str(Path(sys.executable).parent / name)
