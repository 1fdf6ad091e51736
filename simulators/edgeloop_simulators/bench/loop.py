"""A real controller and a real agent that has installed the benchmark's model."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop.toml_text import toml_text
from edgeloop_simulators.bench.model import FEATURES, LABELS, BenchModel
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.fleet import HOST, Process, free_ports, program

TIMEOUT_S = 60.0
SETTLE_S = 3.0
"""How long an agent serves before it is weighed."""


@dataclass(frozen=True)
class Controller:
    client: Client
    url: str
    broker_port: int
    database: Path


@dataclass(frozen=True)
class Agent:
    pid: int
    runner_pid: int
    hello_s: float
    """From the start of the process to its hello in the controller's database."""


@contextmanager
def controller(directory: Path, broker_port: int | None = None) -> Iterator[Controller]:
    """`edgeloop serve`; with the embedded broker unless one is given."""
    directory.mkdir(parents=True)
    http_port, free_port = free_ports(2)
    port = broker_port or free_port
    configuration: dict[str, Any] = {
        "data_dir": str(directory / "data"),
        "tick_s": 0.2,
        "http": {"port": http_port},
        "broker": {"embedded": broker_port is None, "host": HOST, "port": port},
    }
    config = directory / "controller.toml"
    config.write_text(toml_text(configuration), encoding="utf-8")
    process = Process(
        "controller", [program("edgeloop"), "serve", "--config", str(config)], directory
    )
    url = f"http://{HOST}:{http_port}"
    try:
        with Client(url) as client:
            _wait(lambda: _answers(client), process, "the controller answers")
            yield Controller(client, url, port, directory / "data" / "edgeloop.sqlite")
    finally:
        _stop(process)


@contextmanager
def installed_agent(model: BenchModel, directory: Path) -> Iterator[Agent]:
    with controller(directory / "controller") as served:
        client = served.client
        _publish(client, model, directory)
        stream = directory / "stream.npy"
        np.save(stream, model.examples)
        at = directory / "device"
        at.mkdir()
        config = at / "agent.toml"
        configuration = {
            "device_id": "bench",
            "state_dir": str(at / "state"),
            "controller_url": served.url,
            "broker": {"port": served.broker_port},
            "slots": {"main": {"source": {"kind": "replay", "path": str(stream), "rate_hz": 10}}},
        }
        config.write_text(toml_text(configuration), encoding="utf-8")
        command = [program("edgeloop-agent"), "run", "--config", str(config)]
        began = time.perf_counter()
        process = Process("agent", command, at)
        try:
            _wait(lambda: client.get("/devices")["items"], process, "the device says hello")
            hello_s = time.perf_counter() - began
            _roll_out(client, process)
            time.sleep(SETTLE_S)
            children = psutil.Process(process.popen.pid).children()
            yield Agent(process.popen.pid, children[0].pid, hello_s)
        finally:
            _stop(process)


def _publish(client: Client, model: BenchModel, directory: Path) -> None:
    _, model_path = model.write(directory)
    draft = directory / "model.toml"
    names = [f"f{number}" for number in range(FEATURES)]
    draft.write_text(toml_text({"features": names, "labels": list(LABELS)}), encoding="utf-8")
    client.publish(model_path, "bench", "1", manifest=draft)


def _roll_out(client: Client, process: Process) -> None:
    terms = {"soak_s": 0, "probation": {"min_s": 0.5, "min_examples": 5}}
    rollout = client.post(
        "/rollouts",
        {"name": "bench", "version": "1", "selector": "all", "waves": ["1"], "terms": terms},
    )
    _wait(
        lambda: client.get(f"/rollouts/{rollout['id']}")["status"] == "done",
        process,
        "the model is installed",
    )


def _answers(client: Client) -> bool:
    try:
        client.get("/health")
    except ApiError:
        return False
    return True


def _wait(condition: Callable[[], object], process: Process, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        process.check()
        if time.monotonic() > deadline:
            raise SimulatorError(f"not so after {TIMEOUT_S:.0f} s: {what}")
        time.sleep(0.02)


def _stop(process: Process) -> None:
    process.popen.terminate()
    process.end(time.monotonic() + 10)
