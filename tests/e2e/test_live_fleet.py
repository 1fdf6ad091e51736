"""World two: a live fleet, a real mosquitto, a real controller, real agents among the devices.

Cites EL-INV-7 of docs/spec/invariants.md.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeloop.client import Client
from edgeloop_protocol.mqtt import BrokerAddress
from edgeloop_simulators.bench.model import FEATURES
from edgeloop_simulators.live.fleet import DIRECT, DeviceClass, FleetTerms, LiveFleet
from edgeloop_simulators.live.inference import SharedInference
from edgeloop_simulators.live.middle import Middle
from edgeloop_simulators.live.proxy import Link
from edgeloop_simulators.live.publication import publish, roll_out, status
from edgeloop_simulators.live.real_agents import RealAgents
from edgeloop_simulators.live.runners import Misbehaviour, RunnerTerms

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DEVICES = 300
RESTARTED = 1000
BACK_WITHIN_S = 60.0
CONNECTS_A_SECOND_MAX = RESTARTED / 4
"""The first wait is drawn from 0.5 to 8 s: 1,000 devices make 133 connects a second on average."""
PATIENCE_S = 120.0


async def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


def test_a_rollout_reaches_every_device_even_those_that_were_cut_off(
    mosquitto: Any, tmp_path: Path
) -> None:
    async def play() -> None:
        async with Middle(tmp_path / "middle", DEVICES, tick_s=0.5) as middle:
            terms = FleetTerms(
                middle.url,
                middle.address,
                DEVICES,
                classes=(DeviceClass("mobile", 0.2, Link(latency_s=0.02)),),
                runners=RunnerTerms(examples_per_s=10.0, window_s=5.0),
            )
            examples = tmp_path / "examples.npy"
            rows = np.random.default_rng(0).normal(size=(200, FEATURES)).astype(np.float32)
            np.save(examples, rows)
            agents = RealAgents(tmp_path / "agents", middle.url, middle.address, examples, {})
            with closing(agents), closing(SharedInference()) as inference:
                fleet = LiveFleet(terms, inference)
                try:
                    await fleet.start()
                    agents.start("real-1")
                    agents.start("real-2")
                    await _roll_out_around_a_partition(middle, fleet, agents, tmp_path)
                finally:
                    await fleet.close()

    asyncio.run(play())


async def _roll_out_around_a_partition(
    middle: Middle, fleet: LiveFleet, agents: RealAgents, directory: Path
) -> None:
    known = _document(middle.url, "/health")
    while known["devices"]["online"] < DEVICES + 2:
        await asyncio.sleep(0.1)
        known = await asyncio.to_thread(_document, middle.url, "/health")
    await asyncio.to_thread(publish, middle.url, directory, "1")
    mobile = fleet.routes["mobile"]
    mobile.become(Link(partitioned=True))
    rollout = await asyncio.to_thread(roll_out, middle.url, "1")
    cut_off = [one for one in fleet.devices if fleet.terms.class_of(one) != DIRECT]
    assert len(cut_off) > 30
    await until(lambda: fleet.standing.champions["live@1"] == DEVICES - len(cut_off))
    assert await asyncio.to_thread(status, middle.url, rollout) == "running"
    mobile.become(Link())
    await until(lambda: fleet.standing.champions["live@1"] == DEVICES)
    await until(lambda: set(agents.champions().values()) == {"live@1"} and len(agents) == 2)
    while await asyncio.to_thread(status, middle.url, rollout) != "done":
        await asyncio.sleep(0.1)
    assert not fleet.standing.refusals
    shown = await asyncio.to_thread(_document, middle.url, f"/devices/{cut_off[0]}")
    assert shown["slots"][0]["champion"]["version"] == "1"
    received = fleet.received
    await until(lambda: fleet.received > received + DEVICES)  # windows are acknowledged


def test_after_a_brokers_death_a_thousand_devices_are_back_at_a_bounded_rate(
    mosquitto: Any,
) -> None:
    async def play() -> None:
        address = BrokerAddress("127.0.0.1", mosquitto.port)
        with closing(SharedInference()) as inference:
            fleet = LiveFleet(FleetTerms("http://127.0.0.1:1", address, RESTARTED), inference)
            try:
                await fleet.start()
                await until(lambda: fleet.connected == RESTARTED)
                before, killed_at = fleet.connects, asyncio.get_running_loop().time()
                mosquitto.stop()
                mosquitto.start()
                await until(lambda: fleet.connected < RESTARTED, timeout_s=10.0)
                await until(
                    lambda: fleet.connects >= before + RESTARTED and fleet.connected == RESTARTED,
                    timeout_s=BACK_WITHIN_S,
                )
                assert fleet.connects_in_a_second_max(since=killed_at) <= CONNECTS_A_SECOND_MAX
            finally:
                await fleet.close()

    asyncio.run(play())


def test_a_bad_model_is_rolled_back_where_it_misbehaves(mosquitto: Any, tmp_path: Path) -> None:
    async def play() -> None:
        async with Middle(tmp_path / "middle", 40, tick_s=0.2) as middle:
            bad = (Misbehaviour("crash", "live@1", 0.3), Misbehaviour("nan", "live@1", 0.3))
            terms = FleetTerms(
                middle.url, middle.address, 40, runners=RunnerTerms(10.0, misbehaviours=bad)
            )
            with closing(SharedInference()) as inference:
                fleet = LiveFleet(terms, inference)
                try:
                    await fleet.start()
                    await asyncio.to_thread(publish, middle.url, tmp_path, "1")
                    await until(lambda: fleet.connected == 40)
                    await until(lambda: _document(middle.url, "/health")["devices"]["total"] == 40)
                    await asyncio.to_thread(roll_out, middle.url, "1")
                    refusals = fleet.standing.refusals
                    await until(lambda: len(refusals) == 2)
                    assert set(refusals) == {"live@1: runner crashed", "live@1: nan or inf"}
                finally:
                    await fleet.close()

    asyncio.run(play())


def test_two_processes_share_one_fleet_and_leave_nothing_behind(
    mosquitto: Any, tmp_path: Path
) -> None:
    """The first runs its own controller and broker; the second joins it; Ctrl-C ends both."""
    first = _command(tmp_path / "1.txt", "--devices", "30", "--share", "1/2", "--for", "200")
    try:
        words = _words(tmp_path / "1.txt", "joins with ").split("joins with ")[1].split()
        second = _command(
            tmp_path / "2.txt",
            *words[:4],
            *("--devices", "30", "--share", "2/2", "--until", "live@1", "--for", "100"),
            *("--json", str(tmp_path / "2.json")),
        )
        assert second.wait(timeout=120) == 0, (tmp_path / "2.txt").read_text()
        figures = json.loads((tmp_path / "2.json").read_text())
        assert figures["devices"] == 15
        assert figures["champions"] == {"live@1": 15}
        assert _document(words[1], "/health")["devices"]["total"] == 30
        children = psutil.Process(first.pid).children(recursive=True)
        assert len(children) >= 3, "a broker, a controller, a worker"
        os.kill(first.pid, signal.SIGINT)
        assert first.wait(timeout=30) == 130
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    finally:
        first.kill()


def _command(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    program = Path(sys.executable).parent / "edgeloop-sim"
    with log.open("wb") as out:
        return subprocess.Popen([program, "fleet", *arguments], stdout=out, stderr=out)


def _words(log: Path, awaited: str) -> str:
    import time

    deadline = time.monotonic() + 60
    while awaited not in (text := log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def _document(url: str, path: str) -> Any:
    with Client(url) as client:
        return client.get(path)
