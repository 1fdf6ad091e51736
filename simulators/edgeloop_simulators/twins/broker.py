"""An MQTT broker in memory: the simulated twin behind the `Broker` port.

Invariants: the same contract suite as the real brokers'; delivery happens in the publisher's
thread, in order; a crashed client's will is delivered, a stopped one's is not. `available = False`
stands for a broker that is down: clients are disconnected, and come back with it.
"""

import threading

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import BrokerListener


def topic_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 §4.7, for the wildcards that Edgeloop uses (`+` and a trailing `#`)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for index, part in enumerate(wanted):
        if part == "#":
            return True
        if index >= len(given) or part not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


class MemoryBroker:
    """The broker; `client` gives connections to it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clients: dict[str, MemoryClient] = {}
        self._available = True

    def client(
        self,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None = None,
    ) -> "MemoryClient":
        return MemoryClient(self, client_id, subscriptions, will)

    @property
    def available(self) -> bool:
        return self._available

    @available.setter
    def available(self, available: bool) -> None:
        with self._lock:
            self._available = available
            clients = list(self._clients.values())
        for client in clients:
            client.link_changed(available)

    def attach(self, client: "MemoryClient") -> None:
        with self._lock:
            older = self._clients.get(client.client_id)
            self._clients[client.client_id] = client
        if older is not None and older is not client:
            older.link_changed(False)
        client.link_changed(self._available)

    def detach(self, client: "MemoryClient", deliver_will: bool) -> None:
        with self._lock:
            if self._clients.get(client.client_id) is client:
                del self._clients[client.client_id]
        if deliver_will and client.will is not None:
            self.deliver(*client.will)

    def deliver(self, topic: str, payload: bytes) -> None:
        with self._lock:
            receivers = [c for c in self._clients.values() if c.wants(topic)]
        for client in receivers:
            client.receive(topic, payload)


class MemoryClient:
    """A `Broker` port connected to a MemoryBroker."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None,
    ) -> None:
        self.client_id = client_id
        self.will = will
        self._broker = broker
        self._subscriptions = subscriptions
        self._listener: BrokerListener | None = None
        self._connected = False

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        self._broker.attach(self)

    def publish(self, topic: str, payload: bytes) -> bool:
        if not self._connected or len(payload) > PAYLOAD_MAX_BYTES:
            return False
        self._broker.deliver(topic, payload)
        return True

    def stop(self) -> None:
        self._connected = False
        self._broker.detach(self, deliver_will=False)

    def crash(self) -> None:
        """What kill -9 does to a client: the connection is gone and the will is delivered."""
        self._connected = False
        self._listener = None
        self._broker.detach(self, deliver_will=True)

    def link_changed(self, available: bool) -> None:
        if self._listener is None or available == self._connected:
            return
        self._connected = available
        if available:
            self._listener.connected()
        else:
            self._listener.disconnected("the broker is away")

    def wants(self, topic: str) -> bool:
        return self._connected and any(topic_matches(f, topic) for f in self._subscriptions)

    def receive(self, topic: str, payload: bytes) -> None:
        if self._listener is not None:
            self._listener.message(topic, payload)
