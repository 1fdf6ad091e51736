"""A broker and a controller of a live run's own: real mosquitto, real `edgeloop serve`, that can be
killed and started again while the fleet lives.

Invariants: both listen on loopback, on ports that stay theirs; `close` leaves neither behind; a
killed controller finds its data again, a killed broker forgets everything (its persistence is off,
and nothing in Edgeloop rests on it).
"""

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop.toml_text import toml_text
from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.errors import FleetError
from edgeloop_simulators.fleet import HOST, Process, free_ports, program
from edgeloop_simulators.live.descriptors import need_descriptors

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05
MOSQUITTO_CONF: Final = """\
listener {port} 127.0.0.1
user root
allow_anonymous true
persistence false
max_queued_messages 0
log_type error
"""
"""A finite max_queued_messages silently loses QoS 1 messages (DESIGN §7). Started by root it would
become another user, and the kernel would forget to end it with its parent (`launch`)."""


class Program:
    """One of the two processes: started, killed, started again on the same port."""

    def __init__(self, name: str, command: list[str], directory: Path, port: int) -> None:
        self.name, self.port = name, port
        self._command, self._directory = command, directory
        self._process: Process | None = None
        self._cpu_before_s = 0.0

    def start(self) -> None:
        if self._process is None:
            self._process = Process(self.name, self._command, self._directory)

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is saved."""
        if self._process is not None:
            self._cpu_before_s = self.cpu_s()
            self._process.signal(signal.SIGKILL)
            self._process.popen.wait()
            self._process = None

    def end(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGTERM)
            self._process.end(time.monotonic() + STOP_TIMEOUT_S)
            self._process = None

    async def ready(self, is_ready: Callable[[], bool]) -> None:
        """Raises FleetError when it ended, or is not ready in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await asyncio.to_thread(is_ready):
            if self._process is not None:
                self._process.check()
            if time.monotonic() > deadline:
                raise FleetError(f"{self.name} is not ready after {START_TIMEOUT_S:.0f} s")
            await asyncio.sleep(POLL_S)

    def cpu_s(self) -> float:
        """Of all its runs, itself alone."""
        if self._process is None:
            return self._cpu_before_s
        try:
            times = psutil.Process(self._process.popen.pid).cpu_times()
        except psutil.NoSuchProcess:
            return self._cpu_before_s
        return self._cpu_before_s + times.user + times.system

    @property
    def is_running(self) -> bool:
        return self._process is not None


class Middle:
    """Use `async with`."""

    def __init__(self, directory: Path, connections: int, tick_s: float = 1.0) -> None:
        mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if mosquitto is None:
            raise FleetError(
                "mosquitto is not installed: `apt install mosquitto`, or join a controller and a "
                "broker that run already with --join URL --broker HOST:PORT"
            )
        need_descriptors(connections)  # the broker inherits the limit
        http_port, broker_port = free_ports(2)
        self.url = f"http://{HOST}:{http_port}"
        self.address = BrokerAddress(HOST, broker_port)
        configuration: dict[str, Any] = {
            "data_dir": str(directory / "data"),
            "tick_s": tick_s,
            "http": {"host": HOST, "port": http_port},
            "broker": {"embedded": False, "host": HOST, "port": broker_port},
            "log_level": "warning",
        }
        self.database = directory / "data" / "edgeloop.sqlite"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "controller.toml").write_text(toml_text(configuration), encoding="utf-8")
        (directory / "mosquitto.conf").write_text(
            MOSQUITTO_CONF.format(port=broker_port), encoding="utf-8"
        )
        for name in ("broker", "controller"):
            (directory / name).mkdir(exist_ok=True)
        self.broker = Program(
            "mosquitto",
            [mosquitto, "-c", str(directory / "mosquitto.conf")],
            directory / "broker",
            broker_port,
        )
        self.controller = Program(
            "the controller",
            [program("edgeloop"), "serve", "--config", str(directory / "controller.toml")],
            directory / "controller",
            http_port,
        )

    async def __aenter__(self) -> "Middle":
        try:
            await self.start_broker()
            await self.start_controller()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def start_broker(self) -> None:
        self.broker.start()
        await self.broker.ready(lambda: _listens(self.broker.port))

    async def start_controller(self) -> None:
        self.controller.start()
        await self.controller.ready(lambda: _answers(self.url))

    def close(self) -> None:
        self.controller.end()
        self.broker.end()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0


def _answers(url: str) -> bool:
    try:
        with Client(url) as client:
            return bool(client.get("/health")["broker"]["connected"])
    except (ApiError, KeyError):
        return False
