"""One suite for every broker behind the `Broker` port: mosquitto, iotcore, the twin in memory.

The real ones are driven by a thread for each client, and by one loop for all of them.

Cites EL-BROKER-1 … EL-BROKER-4 and EL-MSG-1 of docs/spec/wire.md.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import iotcore
import pytest

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import Broker, BrokerAddress, BrokerListener, PahoBroker
from edgeloop_simulators.live.connections import Connections
from edgeloop_simulators.twins.broker import MemoryBroker


class Recorder:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connections = 0
        self.disconnections: list[str] = []

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str) -> None:
        self.disconnections.append(reason)

    def message(self, topic: str, payload: bytes) -> None:
        self.messages.put((topic, payload))


Connect = Callable[..., tuple[Broker, Recorder]]


class World(Protocol):
    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker: ...

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...

    def close(self) -> None: ...


class RealWorld:
    """A broker process; `start` and `stop` run it on one port."""

    def __init__(self, port: int, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self._address = BrokerAddress("127.0.0.1", port)
        self.come_back, self.go_away = start, stop
        self.close = stop
        start()

    def client(
        self, client_id: str, subscriptions: tuple[str, ...], will: tuple[str, bytes] | None
    ) -> Broker:
        return PahoBroker(self._address, client_id, subscriptions, will)


class MemoryWorld:
    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self.client = self._broker.client

    def go_away(self) -> None:
        self._broker.available = False

    def come_back(self) -> None:
        self._broker.available = True

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

    def __init__(self, port: int, start: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(port, start, stop)
        self._thread = LoopThread()
        self._connections = self._thread.ask(lambda: Connections(self._address))
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


def _iotcore_world(port: int) -> RealWorld:
    running: list[iotcore.Broker] = []

    def start() -> None:
        broker = iotcore.Broker(port=port, listen="127.0.0.1", max_payload_size=192 * 1024)
        broker.start()
        running.append(broker)

    def stop() -> None:
        while running:
            running.pop().stop()

    return RealWorld(port, start, stop)


@pytest.fixture(params=["mosquitto", "one loop", "iotcore", "memory"])
def world(request: pytest.FixtureRequest, free_port: Callable[[], int]) -> Iterator[World]:
    made: World
    if request.param == "mosquitto":
        mosquitto = request.getfixturevalue("mosquitto")
        made = RealWorld(mosquitto.port, mosquitto.start, mosquitto.stop)
    elif request.param == "one loop":
        mosquitto = request.getfixturevalue("mosquitto")
        made = LoopWorld(mosquitto.port, mosquitto.start, mosquitto.stop)
    elif request.param == "iotcore":
        made = _iotcore_world(free_port())
    else:
        made = MemoryWorld()
    yield made
    made.close()


@pytest.fixture
def connect(world: World, wait_until: Callable[..., None]) -> Iterator[Connect]:
    clients: list[Broker] = []

    def _connect(
        client_id: str, *subscriptions: str, will: tuple[str, bytes] | None = None
    ) -> tuple[Broker, Recorder]:
        recorder = Recorder()
        client = world.client(client_id, subscriptions, will)
        clients.append(client)
        client.start(recorder)
        wait_until(lambda: recorder.connections == 1, what=f"{client_id} is connected")
        return client, recorder

    yield _connect
    for client in clients:
        client.stop()


def test_every_device_reaches_the_controller_in_order(connect: Connect) -> None:
    """EL-BROKER-1: `+` filters deliver each device's messages, in order, byte for byte."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    first, _ = connect("d1", "edgeloop/v1/d1/down/+")
    second, _ = connect("d2", "edgeloop/v1/d2/down/+")
    for number in range(20):
        assert first.publish("edgeloop/v1/d1/up/telemetry", b"%d" % number)
    assert second.publish("edgeloop/v1/d2/up/hello", bytes(range(256)))

    received = [controller.messages.get(timeout=10) for _ in range(21)]
    from_first = [payload for topic, payload in received if "/d1/" in topic]
    assert from_first == [b"%d" % number for number in range(20)]
    assert ("edgeloop/v1/d2/up/hello", bytes(range(256))) in received


def test_a_device_hears_only_what_is_for_it(connect: Connect) -> None:
    """EL-TOPIC-1."""
    controller, _ = connect("controller", "edgeloop/v1/+/up/+")
    _, first = connect("d1", "edgeloop/v1/d1/down/+")
    _, second = connect("d2", "edgeloop/v1/d2/down/+")
    assert controller.publish("edgeloop/v1/d1/down/desired", b"one")
    assert controller.publish("edgeloop/v1/d2/down/desired", b"two")
    assert first.messages.get(timeout=10)[1] == b"one"
    assert second.messages.get(timeout=10)[1] == b"two"
    assert first.messages.empty()
    assert second.messages.empty()


def test_the_largest_payload_passes_and_a_larger_one_is_refused(connect: Connect) -> None:
    """EL-MSG-1: what is too large is refused by the sender, and what follows it is delivered."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, own = connect("d1", "edgeloop/v1/d1/down/+")
    topic = "edgeloop/v1/d1/up/telemetry"
    assert not device.publish(topic, b"x" * (PAYLOAD_MAX_BYTES + 1))
    assert device.publish(topic, b"x" * PAYLOAD_MAX_BYTES)
    assert device.publish(topic, b"after")
    assert len(controller.messages.get(timeout=10)[1]) == PAYLOAD_MAX_BYTES
    assert controller.messages.get(timeout=10)[1] == b"after"
    assert own.disconnections == []


def test_a_clean_stop_leaves_no_will(connect: Connect) -> None:
    """EL-BROKER-2: a stopped device is not announced dead by its last will."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, _ = connect("d1", will=("edgeloop/v1/d1/up/presence", b"gone"))
    witness, _ = connect("d2")
    device.stop()
    assert witness.publish("edgeloop/v1/d2/up/hello", b"later")
    assert controller.messages.get(timeout=10) == ("edgeloop/v1/d2/up/hello", b"later")


def test_a_broker_that_goes_away_comes_back_by_itself(
    connect: Connect, world: World, wait_until: Callable[..., None]
) -> None:
    """EL-BROKER-3: while it is away nothing is accepted; afterwards all goes on."""
    _, controller = connect("controller", "edgeloop/v1/+/up/+")
    device, own = connect("d1", "edgeloop/v1/d1/down/+")
    world.go_away()
    wait_until(lambda: own.disconnections and controller.disconnections, what="both noticed")
    assert not device.publish("edgeloop/v1/d1/up/hello", b"lost")
    world.come_back()
    wait_until(lambda: own.connections == 2 and controller.connections == 2, what="both are back")
    assert device.publish("edgeloop/v1/d1/up/hello", b"again")
    assert controller.messages.get(timeout=10)[1] == b"again"


def test_the_newer_of_two_clients_with_one_id_is_served(connect: Connect) -> None:
    """EL-BROKER-4: a device that comes back before its old connection is noticed dead."""
    controller, _ = connect("controller", "edgeloop/v1/+/up/+")
    older, _ = connect("d1", "edgeloop/v1/d1/down/+")
    _, newer = connect("d1", "edgeloop/v1/d1/down/+")
    older.stop()
    assert controller.publish("edgeloop/v1/d1/down/desired", b"for the newer")
    assert newer.messages.get(timeout=10)[1] == b"for the newer"


def test_wrong_password_is_refused_in_words(
    mosquitto: Any, wait_until: Callable[..., None]
) -> None:
    mosquitto.stop()
    mosquitto.settings = "allow_anonymous false\n"
    mosquitto.start()
    recorder = Recorder()
    client = PahoBroker(BrokerAddress("127.0.0.1", mosquitto.port, "me", "wrong"), "d1", ())
    client.start(recorder)
    wait_until(lambda: recorder.disconnections, what="the refusal is reported")
    client.stop()
    assert "refused the connection" in recorder.disconnections[0]
    assert recorder.connections == 0
