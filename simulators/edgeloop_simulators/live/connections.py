"""Thousands of MQTT clients on one asyncio loop, in one thread: the agents' paho, driven by epoll.

Invariants: one descriptor a client and no thread; at most CONNECTING_MAX connects are underway at
once; nothing here blocks, not even a broker that does not answer; the retry law is the agents' own
(edgeloop_protocol.mqtt.PahoConnection). Everything is called on the loop's thread, `publish` and
the listener's methods too; `stop` drops what the socket does not take at once.
"""

import asyncio
import socket
from collections import Counter
from typing import Any, Final

from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    BrokerAddress,
    BrokerListener,
    PahoConnection,
)
from edgeloop_simulators.live.paho_on_loop import LoopClient
from edgeloop_simulators.live.turns import Turns

CONNECTING_MAX: Final = 256
SWEEP_S: Final = 5.0
"""How often every client looks after its keepalive; well below KEEPALIVE_S."""


class Connections:
    """All clients of one broker in this process. Construct it on the running loop."""

    def __init__(self, address: BrokerAddress) -> None:
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop)
        self.address = address
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)
        self.connects = 0
        """Connections that TCP gave, ever: its growth is the rate of connects."""
        self.connects_in: Counter[int] = Counter()
        """The same by the loop's whole second, for the rate of a storm."""
        self.published = 0
        self.received = 0
        self._clients: set[LoopBroker] = set()
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        self.family: socket.AddressFamily = found[0][0]
        self.endpoint: Any = found[0][4]
        self._sweep = self.loop.call_later(SWEEP_S, self._look_after)

    def client(
        self,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None = None,
    ) -> "LoopBroker":
        made = LoopBroker(self, client_id, subscriptions, will)
        self._clients.add(made)
        return made

    def forget(self, client: "LoopBroker") -> None:
        self._clients.discard(client)

    def close(self) -> None:
        """Stop every client that is left."""
        self._sweep.cancel()
        for client in tuple(self._clients):
            client.stop()

    def _look_after(self) -> None:
        self._sweep = self.loop.call_later(SWEEP_S, self._look_after)
        for client in tuple(self._clients):
            client.keep_alive()


class LoopBroker(PahoConnection):
    """A `Broker` on its Connections' loop."""

    def __init__(
        self,
        connections: Connections,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None,
    ) -> None:
        super().__init__(connections.address, client_id, subscriptions, will, LoopClient)
        self._connections = connections
        self._loop = connections.loop
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._writing = False
        client = self._client
        assert isinstance(client, LoopClient)
        self._paho = client
        client.on_socket_open = lambda _c, _u, sock: self._read(sock)
        client.on_socket_close = lambda _c, _u, sock: self._forget_socket(sock)
        client.write_soon = self._write_soon
        client.hear = self._hear

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        address = self._address
        self._client.connect_async(address.host, address.port, keepalive=KEEPALIVE_S)
        self._begin()

    def stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._connections.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._client.disconnect()
        self._client.loop_write()
        left: Any = self._client.socket()
        if left is not None:
            self._forget_socket(left)
            left.close()

    def publish(self, topic: str, payload: bytes) -> bool:
        client = self._paho
        if len(payload) > PAYLOAD_MAX_BYTES or not client.is_connected():
            return False
        sent = client.say(topic, payload)
        self._connections.published += sent
        return sent

    def _hear(self, topic: str, payload: bytes) -> None:
        self._connections.received += 1
        if self._listener is not None:
            self._listener.message(topic, payload)

    def keep_alive(self) -> None:
        self._client.loop_misc()

    def _try_after(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        connections = self._connections
        async with connections.connecting:
            made = socket.socket(connections.family, socket.SOCK_STREAM)
            made.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._loop.sock_connect(made, connections.endpoint)
            except BaseException as error:
                made.close()
                if isinstance(error, OSError):  # TimeoutError is one
                    self._failed(f"no broker answers at {self._address}")
                    return
                raise
        connections.connects += 1
        connections.connects_in[int(self._loop.time())] += 1
        self._paho.connected_socket = made
        self._paho.reconnect()

    def _read(self, sock: Any) -> None:
        self._loop.add_reader(sock, self._client.loop_read)

    def _write_soon(self) -> None:
        self._connections.turns.soon(self._flush)

    def _flush(self) -> None:
        """Usually the kernel takes all at once; only a full socket is watched."""
        if self._stopping.is_set():
            return
        client = self._paho
        client.loop_write()
        if client.want_write():
            self._watch_writing(client.socket())
        elif self._writing:
            self._stop_writing(client.socket())

    def _watch_writing(self, sock: Any) -> None:
        if sock is not None and not self._writing:
            self._writing = True
            self._loop.add_writer(sock, self._flush)

    def _stop_writing(self, sock: Any) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(sock)

    def _forget_socket(self, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._stop_writing(sock)
