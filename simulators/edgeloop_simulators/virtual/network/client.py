"""A device's or the controller's end of the simulated broker: the `Broker` port in virtual time.

Invariants: as edgeloop_protocol.mqtt.PahoConnection (the contract suite holds both): the same
limits, the same law of reconnects, and messages that were sent and not acknowledged are sent again
on the next connection, as paho does. In a partition it believes that it is connected until its
keepalive fails. An idle client costs no event.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.limits import BACKOFF_S_MAX, PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import (
    CONNECT_TIMEOUT_S,
    LOST_REACH_FAILURES,
    OUTGOING_MAX,
    BrokerListener,
)
from edgeloop_simulators.virtual.kernel.loop import EventLoop, Timer
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.network.broker import SILENCE_S, VirtualBroker
from edgeloop_simulators.virtual.network.links import Links
from edgeloop_simulators.virtual.network.wire import Access, Connection, Packet, PacketKind

_SATURATED: Final = 16
"""Failures in a row after which waiting grows no longer."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all clients of a network share."""

    loop: EventLoop
    links: Links
    broker: VirtualBroker
    observe: Observe
    trace_messages: bool


class VirtualClient:
    __slots__ = (
        "_access",
        "_attempt",
        "_connection",
        "_listener",
        "_off_since_s",
        "_outgoing",
        "_ready",
        "_retry",
        "_shared",
        "_silence",
        "client_id",
        "subscriptions",
        "will",
    )

    def __init__(
        self,
        shared: Shared,
        access: Access,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None,
    ) -> None:
        self.client_id = client_id
        self.subscriptions = subscriptions
        self.will = will
        self._shared = shared
        self._access = access
        self._listener: BrokerListener | None = None
        self._connection: Connection | None = None
        self._ready = False
        self._attempt = 0
        self._retry: Timer | None = None
        self._silence: Timer | None = None
        self._outgoing: list[Packet] = []
        self._off_since_s = shared.loop.now_s

    @property
    def outgoing(self) -> int:
        """Messages that are sent and not acknowledged."""
        self._forget_acknowledged()
        return len(self._outgoing)

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        self._access.clients = (*self._access.clients, self)
        self._try()

    def publish(self, topic: str, payload: bytes) -> bool:
        connection = self._connection
        if connection is None or not self._ready or len(payload) > PAYLOAD_MAX_BYTES:
            return False
        if self.outgoing >= OUTGOING_MAX:
            return False
        packet = Packet(topic, payload)
        self._outgoing.append(packet)
        self._shared.links.carry(connection, True, packet)
        return True

    def stop(self) -> None:
        connection = self._let_go()
        if connection is None:
            return
        self._shared.links.carry(connection, True, Packet(kind=PacketKind.DISCONNECT))
        if not self._access.reaches(up=True):
            self._shared.broker.notice_silence(connection)
        self._tell("client.disconnected", reason="stopped")

    def crash(self, reset: bool = False) -> None:
        """The process is gone, without a DISCONNECT. `reset`: its kernel lives on, and ends the
        connection; otherwise (a power cut) the broker learns nothing of it."""
        connection = self._let_go()
        if connection is None:
            return
        connection.given_up = True
        if reset:
            self._shared.links.carry(connection, True, Packet(kind=PacketKind.RESET))
        if not reset or not self._access.reaches(up=True):
            self._shared.broker.notice_silence(connection)
        self._tell("client.disconnected", reason="crashed")

    def radio(self, on: bool) -> None:
        """Off: the connection is lost at once, which the broker does not learn."""
        if on == self._access.radio_on:
            return
        self._access.radio_on = on
        now_s = self._shared.loop.now_s
        if on:
            if now_s - self._off_since_s >= BACKOFF_S_MAX:
                self._attempt = _SATURATED
            if self._listener is not None:
                self._try_after(self._next_delay_s())
            return
        self._off_since_s = now_s
        if self._connection is not None:
            self._shared.broker.notice_silence(self._connection)
            self._lost("the radio is off")
        if self._retry is not None:
            self._retry.cancel()

    def link_cut(self) -> None:
        if self._connection is not None:
            self._silence = self._shared.loop.call_in(SILENCE_S, self._fell_silent)

    def link_mended(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def receive(self, connection: Connection, packet: Packet) -> None:
        """A packet has arrived from the broker."""
        if connection is not self._connection:
            if packet.kind is PacketKind.PUBLISH:
                self._tell("message.dropped", why="the connection has ended", topic=packet.topic)
        elif packet.kind is PacketKind.PUBLISH:
            self._deliver(packet)
        elif packet.kind is PacketKind.READY:
            self._connected(connection)
        else:
            self._lost(packet.topic)

    def _deliver(self, packet: Packet) -> None:
        if self._listener is None:
            return
        if self._shared.trace_messages:
            digest8 = hashlib.sha256(packet.payload).hexdigest()[:8]
            size_bytes = len(packet.payload)
            self._tell(
                "message.delivered", topic=packet.topic, size_bytes=size_bytes, digest8=digest8
            )
        self._listener.message(packet.topic, packet.payload)

    def _try(self) -> None:
        self._retry = None
        if not self._access.radio_on:
            return
        if self._access.is_cut:
            self._try_after(CONNECT_TIMEOUT_S, self._timed_out)
            return
        self._connection = Connection(self, self._access)
        self._shared.links.carry(self._connection, True, Packet(kind=PacketKind.CONNECT))

    def _timed_out(self) -> None:
        self._failed("no broker answers")

    def _connected(self, connection: Connection) -> None:
        self._ready = True
        self._attempt = LOST_REACH_FAILURES
        self._tell("client.connected")
        for packet in self._outgoing:
            self._tell("message.duplicated", why="not acknowledged", topic=packet.topic)
            self._shared.links.carry(connection, True, packet)
        if self._listener is not None:
            self._listener.connected()

    def _fell_silent(self) -> None:
        self._silence = None
        connection = self._connection
        if connection is not None:
            self._shared.broker.drop(connection)
            self._lost("keepalive timeout")

    def _lost(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.given_up = True
        was_ready, self._ready, self._connection = self._ready, False, None
        self._forget_acknowledged()
        # Acknowledgements of the old connection, still underway, must not count for the new one.
        self._outgoing = [Packet(sent.topic, sent.payload) for sent in self._outgoing]
        if was_ready:
            self._tell("client.disconnected", reason=reason)
        self._failed(reason)

    def _failed(self, reason: str) -> None:
        self._attempt += 1
        self._try_after(self._next_delay_s())
        if self._listener is not None:
            self._listener.disconnected(reason)

    def _next_delay_s(self) -> float:
        return backoff_s(self._attempt, self._access.luck.random())

    def _try_after(self, delay_s: float, then: Callable[[], None] | None = None) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._shared.loop.call_in(delay_s, then or self._try)

    def _let_go(self) -> Connection | None:
        connection, self._connection = self._connection, None
        self._listener = None
        self._ready = False
        self._outgoing = []
        self._access.clients = tuple(c for c in self._access.clients if c is not self)
        for timer in (self._retry, self._silence):
            if timer is not None:
                timer.cancel()
        self._retry = self._silence = None
        return connection

    def _forget_acknowledged(self) -> None:
        if self._outgoing:
            now_s = self._shared.loop.now_s
            self._outgoing = [sent for sent in self._outgoing if sent.acked_at_s > now_s]

    def _tell(self, what: str, **data: object) -> None:
        shared = self._shared
        shared.observe(Seen(shared.loop.now_s, self._access.place.name, what, data))
