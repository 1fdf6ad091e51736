"""What the simulated network is made of: places, connections with two lanes, packets.

Invariants: a connection is one TCP connection; its packets arrive in the order sent, unless a fault
reorders them; each end lets go of it by itself, and only then knows nothing more of it.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from edgeloop_simulators.virtual.kernel.streams import LightStream
from edgeloop_simulators.virtual.spec.faults import FaultKind
from edgeloop_simulators.virtual.spec.world import Link

_USUAL_LINK: Final = Link()


class PacketKind(Enum):
    CONNECT = auto()
    """With what is subscribed to; the answer is READY or CLOSE."""
    READY = auto()
    PUBLISH = auto()
    DISCONNECT = auto()
    RESET = auto()
    """The client's process is gone and its kernel says so."""
    CLOSE = auto()
    """The broker ends the connection; `topic` says why."""


class Packet:
    """`acked_at_s`: when its sender knows that the broker has it."""

    __slots__ = ("acked_at_s", "kind", "payload", "size_bytes", "topic")

    def __init__(
        self, topic: str = "", payload: bytes = b"", kind: PacketKind = PacketKind.PUBLISH
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.kind = kind
        self.size_bytes = len(topic) + len(payload)
        """What MQTT adds is not counted."""
        self.acked_at_s = math.inf


class Lane:
    """One direction. `pending` packets are underway; of these, `held` wait out a partition."""

    __slots__ = ("busy_until_s", "clear_s", "held", "pending", "pending_bytes")

    def __init__(self) -> None:
        self.busy_until_s = 0.0
        self.clear_s = 0.0
        self.pending = 0
        self.pending_bytes = 0
        self.held: list[Packet] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint stands: what the faults of the network can hit."""

    name: str
    """A device id, or `controller`."""
    site: str = ""
    kind: str = ""
    """The name of the device's class."""
    link: Link = _USUAL_LINK


class ClientEnd(Protocol):
    """Who connects."""

    client_id: str
    subscriptions: tuple[str, ...]
    will: tuple[str, bytes] | None

    def receive(self, connection: "Connection", packet: Packet) -> None: ...


class Endpoint(ClientEnd, Protocol):
    """One of the network's own clients, which is told how its link is."""

    @property
    def outgoing(self) -> int:
        """Messages that are sent and not acknowledged."""

    def link_cut(self) -> None: ...

    def link_mended(self) -> None: ...


class Access:
    """A place's link as it is now; it outlives the clients that use it."""

    __slots__ = ("clients", "cuts_down", "cuts_up", "held", "luck", "place", "radio_on")

    def __init__(self, place: Place, luck: LightStream) -> None:
        self.place = place
        self.luck = luck
        self.cuts_up = 0
        self.cuts_down = 0
        self.radio_on = True
        self.clients: tuple[Endpoint, ...] = ()
        self.held: tuple[tuple[Connection, bool], ...] = ()
        """Connections, and in which direction packets wait on them."""

    @property
    def is_cut(self) -> bool:
        return bool(self.cuts_up or self.cuts_down)

    def reaches(self, up: bool) -> bool:
        return self.radio_on and not (self.cuts_up if up else self.cuts_down)

    def one_way_s(self) -> float:
        return self.place.link.latency_s + self.place.link.jitter_s * self.luck.random()

    def cut(self, kind: FaultKind, by: int) -> None:
        self.cuts_up += by * (kind is not FaultKind.PARTITION_DOWN)
        self.cuts_down += by * (kind is not FaultKind.PARTITION_UP)


class Connection:
    """Between a client and the broker, over the link of the client's place."""

    __slots__ = ("access", "client", "down", "given_up", "up")

    def __init__(self, client: ClientEnd, access: Access) -> None:
        self.given_up = False
        """By its client, which will not speak on it any more."""
        self.client = client
        self.access = access
        self.up = Lane()
        self.down = Lane()
