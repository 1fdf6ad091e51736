"""The simulated links and MQTT broker of a virtual world, and the faults that befall them.

Invariants: all of it runs on the EventLoop in virtual time; luck comes from streams named after the
place or the fault, so that one fault less leaves the luck of everything else; what an endpoint sees
is what a real client of that broker would see (tests/contracts/test_broker_contract.py); every
queue is bounded (`queue_sizes`).
"""

from functools import partial
from typing import Final

from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.broker import VirtualBroker
from edgeloop_simulators.virtual.network.broker_profiles import BrokerProfile
from edgeloop_simulators.virtual.network.client import Shared, VirtualClient
from edgeloop_simulators.virtual.network.links import MESSAGE_FAULTS, PARTITIONS, Links
from edgeloop_simulators.virtual.network.poison import oversize, poisoned
from edgeloop_simulators.virtual.network.wire import Access, Connection, Packet, Place
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind

CONTROLLER: Final = "controller"
_ON_LINKS: Final = MESSAGE_FAULTS | PARTITIONS
_RETAINED_SHARE: Final = 0.25
"""Of poisoned messages: the broker keeps them for whoever subscribes later."""


class _Impostor:
    """Has a device's client id, and hears nothing."""

    subscriptions: tuple[str, ...] = ()
    will: tuple[str, bytes] | None = None

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def receive(self, connection: Connection, packet: Packet) -> None:
        """Whatever comes."""


class Network:
    def __init__(
        self,
        loop: EventLoop,
        streams: Streams,
        observe: Observe,
        profile: BrokerProfile,
        *,
        trace_messages: bool = True,
    ) -> None:
        self._loop = loop
        self._streams = streams
        self._links = Links(loop, streams, observe)
        self.broker = VirtualBroker(loop, self._links, profile, observe)
        self._links.to_broker = self.broker.take
        self._shared = Shared(loop, self._links, self.broker, observe, trace_messages)
        self.bytes_up = self._links.bytes_up
        """Topics and payloads that a place sent, also what was lost; by the place's name."""
        self.bytes_down = self._links.bytes_down
        """And those that reached it."""

    def client(
        self,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None,
        place: Place,
    ) -> VirtualClient:
        access = self._links.access(place)
        return VirtualClient(self._shared, access, client_id, subscriptions, will)

    def reaches(self, place: Place, up: bool = True) -> bool:
        """No partition in this direction, and the radio is on."""
        return self._links.access(place).reaches(up)

    def queue_sizes(self) -> dict[str, int]:
        """What waits now, by who it waits for: messages that a client has sent and that are not
        acknowledged (at most OUTGOING_MAX), messages underway to a subscriber (at most the
        profile's `queue_max`). Those for whom nothing waits are left out."""
        sizes: dict[str, int] = {}
        for name, access in self._links.accesses.items():
            waiting = sum(client.outgoing for client in access.clients)
            if waiting:
                sizes[f"from {name}"] = waiting
        for client_id, connection in self.broker.sessions.items():
            if connection.down.pending:
                sizes[f"to {client_id}"] = connection.down.pending
        return sizes

    def begin(self, fault: Fault) -> None:
        """`fault.kind` is one of OF_THE_NETWORK; `end` of the same fault follows."""
        match fault.kind:
            case FaultKind.BROKER_RESTART | FaultKind.BROKER_WIPE:
                self.broker.go_away(wipe=fault.kind is FaultKind.BROKER_WIPE)
            case FaultKind.RETAINED_LOST:
                self.broker.retained.clear()
            case FaultKind.DUPLICATE_CLIENT_ID | FaultKind.POISON | FaultKind.OVERSIZE:
                for access in self._links.hit_by(fault):
                    self._schedule(fault, access)
            case _:
                self._links.begin(fault)

    def end(self, fault: Fault) -> None:
        if fault.kind in _ON_LINKS:
            self._links.end(fault)
        elif fault.kind in (FaultKind.BROKER_RESTART, FaultKind.BROKER_WIPE):
            self.broker.come_back()

    def _schedule(self, fault: Fault, access: Access) -> None:
        """`amount` times, evenly over the fault's duration."""
        name = access.place.name
        if fault.kind is not FaultKind.DUPLICATE_CLIENT_ID and name == CONTROLLER:
            return  # no topic is its own
        luck = self._streams.stream(f"network/{fault.kind}/{fault.at_s}/{name}")
        times = max(1, int(fault.amount))
        for number in range(times):
            wait_s = fault.duration_s * number / times
            if fault.kind is FaultKind.DUPLICATE_CLIENT_ID:
                action = partial(self._impersonate, access)
            elif fault.kind is FaultKind.POISON:
                topic, payload = poisoned(name, luck)
                retain = luck.random() < _RETAINED_SHARE
                action = partial(self.broker.publish, topic, payload, retain)
            else:
                action = partial(self.broker.publish, *oversize(name, luck))
            self._loop.call_in(wait_s, action)

    def _impersonate(self, access: Access) -> None:
        if not self.broker.is_up:
            return
        for client in access.clients:
            impostor = _Impostor(client.client_id)
            self.broker.attach(Connection(impostor, access))
