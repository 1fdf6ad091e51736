"""Every broker that the contract and the profile tests run on, behind one small interface.

A world is a broker with clients of the `Broker` port; the simulated one's time passes only while a
test waits, so a test waits by `world.wait_until` and by `Recorder.next`, never by itself.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import iotcore
import pytest
from paho.mqtt import publish as paho_publish

from edgeloop_protocol.mqtt import Broker, BrokerAddress, BrokerListener, PahoBroker
from edgeloop_simulators.live.connections import Connections
from edgeloop_simulators.twins.broker import MemoryBroker
from edgeloop_simulators.virtual.broker_profiles import PROFILES, BrokerProfile
from edgeloop_simulators.virtual.faults import Fault, FaultKind
from edgeloop_simulators.virtual.loop import EventLoop
from edgeloop_simulators.virtual.network import Network
from edgeloop_simulators.virtual.spec import Link
from edgeloop_simulators.virtual.streams import Streams
from edgeloop_simulators.virtual.wire import Place

VIRTUAL_TIMEOUT_S = 600.0

WaitUntil = Callable[..., None]


class Recorder:
    """A listener that keeps what it was told."""

    def __init__(self, wait_until: WaitUntil) -> None:
        self.messages: deque[tuple[str, bytes]] = deque()
        self.connections = 0
        self.disconnections: list[str] = []
        self._wait_until = wait_until

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str) -> None:
        self.disconnections.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def next(self) -> tuple[str, bytes]:
        """The oldest message not yet looked at; waits for one."""
        self._wait_until(lambda: self.messages, what="a message arrives")
        return self.messages.popleft()


class World(Protocol):
    wait_until: WaitUntil

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker: ...

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...

    def close(self) -> None: ...


class RealWorld:
    """A broker process; `start` and `stop` run it on one port."""

    def __init__(
        self,
        port: int,
        start: Callable[[], None],
        stop: Callable[[], None],
        wait_until: WaitUntil,
    ) -> None:
        self.address = BrokerAddress("127.0.0.1", port)
        self.come_back, self.go_away = start, stop
        self.close = stop
        self.wait_until = wait_until
        start()

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        return PahoBroker(self.address, client_id, subscriptions, will)

    def retain(self, topic: str, payload: bytes) -> None:
        address = self.address
        paho_publish.single(topic, payload, 1, True, address.host, address.port)


class MemoryWorld:
    def __init__(self, wait_until: WaitUntil) -> None:
        self._broker = MemoryBroker()
        self.client = self._broker.client
        self.wait_until = wait_until

    def go_away(self) -> None:
        self._broker.available = False

    def come_back(self) -> None:
        self._broker.available = True

    def close(self) -> None:
        pass


class VirtualWorld:
    """The simulated broker of a profile, with clients at places of their own."""

    def __init__(self, profile: BrokerProfile, link: Link | None = None) -> None:
        self.loop = EventLoop()
        self.seen: list[Any] = []
        self.network = Network(self.loop, Streams(1), self.seen.append, profile)
        self._link = link or Link(latency_s=0.001, jitter_s=0.001)
        self._outage = Fault(kind=FaultKind.BROKER_RESTART, at_s=0.0, target="broker")

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        return self.network.client(client_id, subscriptions, will, self.place(client_id))

    def place(self, name: str) -> Place:
        return Place(name, link=self._link)

    def wait_until(self, condition: Callable[[], object], what: str = "") -> None:
        until_s = self.loop.now_s + VIRTUAL_TIMEOUT_S
        while not condition():
            if not self.loop.step(until_s):
                pytest.fail(f"never: {what or condition}")

    def retain(self, topic: str, payload: bytes) -> None:
        self.network.broker.publish(topic, payload, retain=True)

    def go_away(self) -> None:
        self.network.begin(self._outage)

    def come_back(self) -> None:
        self.network.end(self._outage)

    def close(self) -> None:
        pass


T = TypeVar("T")


class LoopThread:
    """An event loop that a test's own thread can ask."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def ask(self, call: Callable[[], T]) -> T:
        async def on_loop() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class AskedBroker:
    def __init__(self, thread: LoopThread, broker: Broker) -> None:
        self._thread, self._broker = thread, broker

    def start(self, listener: BrokerListener) -> None:
        self._thread.ask(lambda: self._broker.start(listener))

    def publish(self, topic: str, payload: bytes) -> bool:
        return self._thread.ask(lambda: self._broker.publish(topic, payload))

    def stop(self) -> None:
        self._thread.ask(self._broker.stop)


class LoopWorld(RealWorld):
    """All clients on one loop."""

    def __init__(
        self,
        port: int,
        start: Callable[[], None],
        stop: Callable[[], None],
        wait_until: WaitUntil,
    ) -> None:
        super().__init__(port, start, stop, wait_until)
        self._thread = LoopThread()
        self._connections = self._thread.ask(lambda: Connections(self.address))
        self.close = self._close

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        made = self._thread.ask(lambda: self._connections.client(client_id, subscriptions, will))
        return AskedBroker(self._thread, made)

    def _close(self) -> None:
        self._thread.ask(self._connections.close)
        self._thread.close()
        self.go_away()


def _iotcore_world(port: int, wait_until: WaitUntil) -> RealWorld:
    running: list[iotcore.Broker] = []

    def start() -> None:
        broker = iotcore.Broker(port=port, listen="127.0.0.1", max_payload_size=192 * 1024)
        broker.start()
        running.append(broker)

    def stop() -> None:
        while running:
            running.pop().stop()

    return RealWorld(port, start, stop, wait_until)


REAL = ("mosquitto", "one loop", "iotcore")
SIMULATED = tuple(f"simulated {name}" for name in PROFILES)


@pytest.fixture(params=[*REAL, "memory", *SIMULATED])
def world(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[World]:
    made = _make(request, request.param, wait_until)
    yield made
    made.close()


def _make(request: pytest.FixtureRequest, name: str, wait_until: WaitUntil) -> World:
    if name in SIMULATED:
        return VirtualWorld(PROFILES[name.removeprefix("simulated ")])
    if name == "memory":
        return MemoryWorld(wait_until)
    if name == "iotcore":
        return _iotcore_world(request.getfixturevalue("free_port")(), wait_until)
    mosquitto = request.getfixturevalue("mosquitto")
    kind = LoopWorld if name == "one loop" else RealWorld
    return kind(mosquitto.port, mosquitto.start, mosquitto.stop, wait_until)


@pytest.fixture
def recorder(world: World) -> Callable[[], Recorder]:
    return lambda: Recorder(world.wait_until)


@pytest.fixture
def connect(world: World) -> Iterator[Callable[..., tuple[Broker, Recorder]]]:
    clients: list[Broker] = []

    def _connect(
        client_id: str, *subscriptions: str, will: tuple[str, bytes] | None = None
    ) -> tuple[Broker, Recorder]:
        recorder = Recorder(world.wait_until)
        client = world.client(client_id, subscriptions, will)
        clients.append(client)
        client.start(recorder)
        world.wait_until(lambda: recorder.connections == 1, what=f"{client_id} is connected")
        return client, recorder

    yield _connect
    for client in clients:
        client.stop()
