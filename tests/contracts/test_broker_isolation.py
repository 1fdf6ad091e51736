"""The full matrix of a hundred devices on real brokers: none reads, writes or evicts another.

Each assertion is on what was delivered: brokers grant subscriptions that they never serve.
"""

import asyncio
import getpass
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_matrix import (
    DEVICES,
    MOSQUITTO,
    NATS,
    Fleet,
    Started,
    device,
    intrusions,
    nobody_reads_another,
    nobody_writes_for_another,
    wills_for_others,
)

from edgeloop_controller.broker_files import mosquitto, nats, writing
from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.config import CaConfig

OWN = {(device(n), device(n)) for n in range(DEVICES)}
FULL = "EDGELOOP_FULL_MATRIX" in os.environ
THIEVES = range(DEVICES) if FULL else (0, 41, DEVICES - 1)
"""mosquitto ends the connection of who writes what it may not: all are 19,800 handshakes."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca", CaConfig(), time.time())


@pytest.fixture
def mosquitto_fleet(
    authority: Authority, tmp_path: Path, free_port: Callable[[], int], wait_until: Any
) -> Iterator[Fleet]:
    directory, port = tmp_path / "broker", free_port()
    now, user = time.time(), getpass.getuser()
    writing.write_mosquitto(directory, authority, [], ["127.0.0.1"], port, "127.0.0.1", user, now)
    assert MOSQUITTO
    command = [MOSQUITTO, "-c", str(directory / mosquitto.CONFIGURATION)]
    started = Started(command, tmp_path / "log", port, wait_until)
    yield Fleet(tmp_path, authority, port)
    started.end()


@pytest.fixture
def nats_fleet(
    authority: Authority, tmp_path: Path, free_port: Callable[[], int], wait_until: Any
) -> Iterator[Fleet]:
    directory, port, client_port = tmp_path / "broker", free_port(), free_port()
    fleet = Fleet(tmp_path, authority, port)
    for number in range(DEVICES):
        fleet.context(device(number))
    writing.write_nats(
        directory, authority, fleet.keys, ["127.0.0.1"], port, "127.0.0.1", client_port, time.time()
    )
    command = [NATS, "-c", str(directory / nats.CONFIGURATION)]
    started = Started(command, tmp_path / "log", port, wait_until)
    yield fleet
    started.end()


@pytest.mark.parametrize("qos", [0, 1])
def test_mosquitto_nobody_reads_another(mosquitto_fleet: Fleet, qos: int) -> None:
    got, _ = asyncio.run(nobody_reads_another(mosquitto_fleet, qos))
    assert got == OWN


def test_mosquitto_nobody_evicts_or_writes_for_another(mosquitto_fleet: Fleet) -> None:
    came = asyncio.run(intrusions(mosquitto_fleet, THIEVES))
    assert came.tries == len(THIEVES) * (DEVICES - 1) * 2
    assert came.thrown_out == set()
    assert came.reached == set()


def test_mosquitto_no_last_will_is_for_another(mosquitto_fleet: Fleet) -> None:
    came = asyncio.run(wills_for_others(mosquitto_fleet))
    assert came == OWN - {(device(DEVICES - 1), device(DEVICES - 1))}


@pytest.mark.parametrize("qos", [0, 1])
def test_nats_nobody_reads_another(nats_fleet: Fleet, qos: int) -> None:
    got, _ = asyncio.run(nobody_reads_another(nats_fleet, qos))
    assert got == OWN


@pytest.mark.parametrize("qos", [0, 1])
def test_nats_nobody_writes_for_another(nats_fleet: Fleet, qos: int) -> None:
    reached = asyncio.run(nobody_writes_for_another(nats_fleet, qos))
    assert reached == {(writer, owner, "up") for writer, owner in OWN}


def test_nats_no_last_will_is_for_another(nats_fleet: Fleet) -> None:
    came = asyncio.run(wills_for_others(nats_fleet))
    assert came == OWN - {(device(DEVICES - 1), device(DEVICES - 1))}


def test_nats_does_not_bind_client_ids(nats_fleet: Fleet) -> None:
    """What NATS gets wrong, as the ADR states: the other's session ends, and nothing of it is read
    or written. When this fails, NATS has mended it: say so."""
    came = asyncio.run(intrusions(nats_fleet, (0,)))
    assert came.reached == set()
    assert came.thrown_out == {(device(0), device(n)) for n in range(1, DEVICES)}
