"""Many clients on one loop: a broker that restarts gets them all back, spread out."""

import asyncio
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.limits import BACKOFF_S_MIN
from edgeloop_protocol.mqtt import LOST_REACH_FAILURES, BrokerAddress
from edgeloop_simulators.live.connections import Connections

CLIENTS = 300
PATIENCE_S = 60.0


class Listener:
    up = False

    def connected(self) -> None:
        self.up = True

    def disconnected(self, reason: str) -> None:
        self.up = False

    def message(self, topic: str, payload: bytes) -> None:
        pass


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.e2e
def test_after_a_restart_all_come_back_spread_over_seconds(mosquitto: Any) -> None:
    async def play() -> None:
        process = psutil.Process()
        connections = Connections(BrokerAddress("127.0.0.1", mosquitto.port))
        before, threads = process.num_fds(), process.num_threads()
        listeners = [Listener() for _ in range(CLIENTS)]
        for number, listener in enumerate(listeners):
            client = connections.client(f"d{number}", (f"edgeloop/v1/d{number}/down/+",))
            client.start(listener)
        await until(lambda: all(listener.up for listener in listeners))
        assert process.num_fds() - before <= CLIENTS + 2
        assert process.num_threads() == threads

        loop = asyncio.get_running_loop()
        mosquitto.stop()
        mosquitto.start()
        counted, delays = connections.connects, []
        lost_at = loop.time()
        while connections.connects < counted + CLIENTS:
            await asyncio.sleep(0.02)
            delays.append((loop.time() - lost_at, connections.connects - counted))
        await until(lambda: all(listener.up for listener in listeners))
        after_a_second = max((made for at_s, made in delays if at_s < 1.0), default=0)
        assert after_a_second < CLIENTS / 2
        connections.close()

    asyncio.run(play())


def test_the_first_wait_after_a_lost_connection_reaches_far() -> None:
    assert backoff_s(LOST_REACH_FAILURES + 1, 0.9999) > 7.5
    assert backoff_s(LOST_REACH_FAILURES + 1, 0.0) == BACKOFF_S_MIN
