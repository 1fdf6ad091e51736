"""The MQTT broker of the virtual world: sessions, subscriptions, wills, retained messages.

Invariants: sessions are clean; of two connections with one client id the newer is served; what is
dropped is told to the observers, never to the publisher; nothing here waits, and no session costs
an event while nothing happens to it.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from edgeloop_protocol.mqtt import KEEPALIVE_S
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.network.broker_profiles import (
    KEEPALIVE_FACTOR,
    BrokerProfile,
    TakeoverWill,
)
from edgeloop_simulators.virtual.network.links import Links
from edgeloop_simulators.virtual.network.routes import Routes
from edgeloop_simulators.virtual.network.wire import Connection, Packet, PacketKind

SILENCE_S: Final = KEEPALIVE_S * KEEPALIVE_FACTOR
RETAINED_MAX: Final = 10_000
UP: Final = "/up/"


class VirtualBroker:
    def __init__(
        self, loop: EventLoop, links: Links, profile: BrokerProfile, observe: Observe
    ) -> None:
        self.profile = profile
        self.sessions: dict[str, Connection] = {}
        self.retained: dict[str, bytes] = {}
        self.hears_up: Callable[[str, bytes], None] | None = None
        """Is told of what devices say, in place of a client that subscribes to it."""
        self._loop = loop
        self._links = links
        self._observe = observe
        self._routes = Routes()
        self._outages = 0

    def take(self, connection: Connection, packet: Packet) -> None:
        """A packet has arrived from a client."""
        if packet.kind is PacketKind.CONNECT:
            if not connection.given_up:
                self._connect(connection)
        elif self.sessions.get(connection.client.client_id) is not connection:
            if packet.kind is PacketKind.PUBLISH:
                self._tell("message.dropped", packet.topic, "its connection has ended")
        elif packet.kind is not PacketKind.PUBLISH:
            self.drop(connection, will=packet.kind is PacketKind.RESET)
        else:
            self._take_message(connection, packet)

    def attach(self, connection: Connection) -> None:
        """From now on the session of its client id, whoever held that before."""
        client = connection.client
        older = self.sessions.get(client.client_id)
        will_of = self.profile.will_at_takeover
        if older is not None:
            self.close(older, "session taken over", will=will_of is TakeoverWill.OLDER)
        self.sessions[client.client_id] = connection
        for topic_filter in client.subscriptions:
            self._routes.add(topic_filter, connection)
        if older is not None and will_of is TakeoverWill.NEWER and client.will is not None:
            self._deliver(*client.will)

    def close(self, connection: Connection, why: str, will: bool = True) -> None:
        self.drop(connection, will)
        self._links.carry(connection, False, Packet(why, kind=PacketKind.CLOSE))

    def drop(self, connection: Connection, will: bool = True) -> None:
        """Its connection is gone; a session that another has taken over stays."""
        client = connection.client
        if self.sessions.get(client.client_id) is not connection:
            return
        del self.sessions[client.client_id]
        for topic_filter in client.subscriptions:
            self._routes.remove(topic_filter, connection)
        if will and client.will is not None:
            self._deliver(*client.will)

    def notice_silence(self, connection: Connection) -> None:
        """Nothing comes from it any more, not even an end."""
        self._loop.call_in(SILENCE_S, partial(self.drop, connection))

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """What somebody says who is no client of the network: limits hold for them too."""
        if not self.is_up:
            return
        problem = self._problem(topic, payload)
        if problem:
            self._tell("message.refused", topic, problem)
            return
        if retain and (topic in self.retained or len(self.retained) < RETAINED_MAX):
            self.retained[topic] = payload
        self._deliver(topic, payload)

    @property
    def is_up(self) -> bool:
        return self._outages == 0

    def go_away(self, wipe: bool = False) -> None:
        """Every connection ends, without a will; none is taken until `come_back`."""
        self._outages += 1
        for connection in tuple(self.sessions.values()):
            self.close(connection, "the broker has ended", will=False)
        if wipe or not self.profile.keeps_retained_over_restart:
            self.retained.clear()

    def come_back(self) -> None:
        self._outages -= 1

    def _connect(self, connection: Connection) -> None:
        if not self.is_up:
            refusal = Packet("no broker answers", kind=PacketKind.CLOSE)
            self._links.carry(connection, False, refusal)
            return
        self.attach(connection)
        self._links.carry(connection, False, Packet(kind=PacketKind.READY))
        for topic, payload in self.retained.items():
            if self._hears_retained(connection, topic):
                self._links.carry(connection, False, Packet(topic, payload))

    def _hears_retained(self, connection: Connection, topic: str) -> bool:
        if self.profile.retained_for_wildcards:
            return connection in self._routes.of(topic)
        return topic in connection.client.subscriptions

    def _take_message(self, connection: Connection, packet: Packet) -> None:
        problem = self._problem(packet.topic, packet.payload)
        if problem:
            self._tell("message.refused", packet.topic, problem)
            self.close(connection, f"the broker refused a message: {problem}")
            return
        access = connection.access
        if not access.cuts_down:
            packet.acked_at_s = self._loop.now_s + access.place.link.latency_s
        self._deliver(packet.topic, packet.payload)

    def _problem(self, topic: str, payload: bytes) -> str:
        profile = self.profile
        if len(payload) > profile.payload_max_bytes:
            return "payload"
        return "topic" if any(char in topic for char in profile.refused_in_topics) else ""

    def _deliver(self, topic: str, payload: bytes) -> None:
        if self.hears_up is not None and UP in topic:
            self.hears_up(topic, payload)
            return
        profile = self.profile
        for connection in self._routes.of(topic):
            lane = connection.down
            if lane.pending >= profile.queue_max or lane.pending_bytes >= profile.queue_max_bytes:
                self._tell("message.dropped", topic, "the subscriber's queue is full")
            else:
                self._links.carry(connection, False, Packet(topic, payload))

    def _tell(self, what: str, topic: str, why: str) -> None:
        self._observe(Seen(self._loop.now_s, "broker", what, {"why": why, "topic": topic}))
