"""The links between places and the broker: latency, bandwidth, order, loss, partitions.

Invariants: a packet costs one event per hop; what a partition holds back arrives in order after its
end, if the connection still stands, as TCP would send it again; only published messages are
dropped, doubled, delayed or reordered by a fault, never what opens or closes a connection.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.seen import Observe, Seen
from edgeloop_simulators.virtual.kernel.streams import LightStream, Streams
from edgeloop_simulators.virtual.network.wire import (
    Access,
    Connection,
    Lane,
    Packet,
    PacketKind,
    Place,
)
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind

REORDER_S_MAX: Final = 30.0
"""How much later than in its turn a reordered message arrives, at most."""
RESEND_S_MAX: Final = 1.0
"""After a partition's end, until TCP tries again."""

MESSAGE_FAULTS: Final = frozenset(
    {FaultKind.DROP, FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.DELAY}
)
PARTITIONS: Final = frozenset(
    {FaultKind.PARTITION, FaultKind.PARTITION_UP, FaultKind.PARTITION_DOWN}
)


class _Acting:
    """A fault of messages while it lasts, with luck of its own for each direction of each link."""

    __slots__ = ("_lucks", "_streams", "fault")

    def __init__(self, fault: Fault, streams: Streams) -> None:
        self.fault = fault
        self._streams = streams
        self._lucks: dict[tuple[str, bool], LightStream] = {}

    def hits(self, place: Place) -> bool:
        return self.fault.hits(place.name, place.site, place.kind)

    def luck(self, place: Place, up: bool) -> LightStream:
        luck = self._lucks.get((place.name, up))
        if luck is None:
            fault = self.fault
            name = f"network/{fault.kind}/{fault.target}/{fault.at_s}/{place.name}/{up}"
            luck = self._lucks[place.name, up] = self._streams.light(name)
        return luck


class Links:
    """`to_broker` is called with every packet that arrives there."""

    def __init__(self, loop: EventLoop, streams: Streams, observe: Observe) -> None:
        self.loop = loop
        self.accesses: dict[str, Access] = {}
        self.bytes_up: dict[str, int] = {}
        self.bytes_down: dict[str, int] = {}
        self.pending_max = 0
        """The most that was ever underway on one lane."""
        self.to_broker: Callable[[Connection, Packet], None] = _nowhere
        self._streams = streams
        self._observe = observe
        self._partitions: list[Fault] = []
        self._acting: list[_Acting] = []

    def access(self, place: Place) -> Access:
        known = self.accesses.get(place.name)
        if known is not None:
            return known
        made = Access(place, self._streams.light(f"network/{place.name}"))
        for fault in self._partitions:
            if fault.hits(place.name, place.site, place.kind):
                made.cut(fault.kind, 1)
        self.accesses[place.name] = made
        self.bytes_up[place.name] = self.bytes_down[place.name] = 0
        return made

    def hit_by(self, fault: Fault) -> Iterable[Access]:
        """The places known so far that a fault hits."""
        if fault.target in self.accesses:
            return (self.accesses[fault.target],)
        return [
            access
            for access in tuple(self.accesses.values())
            if fault.hits(access.place.name, access.place.site, access.place.kind)
        ]

    def carry(self, connection: Connection, up: bool, packet: Packet) -> None:
        """Send on its way what arrives one hop later, or never."""
        access = connection.access
        lane = connection.up if up else connection.down
        if packet.kind is not PacketKind.PUBLISH:
            self._send(access, lane, up, connection, packet, 0.0)
            return
        if up:
            self.bytes_up[access.place.name] += packet.size_bytes
        loss = access.place.link.loss
        if loss and access.luck.random() < loss:
            self._lose(packet, access, up, "lost on the link")
        elif self._acting:
            self._carry_under_faults(access, lane, up, connection, packet)
        else:
            self._send(access, lane, up, connection, packet, 0.0)

    def begin(self, fault: Fault) -> None:
        if fault.kind in MESSAGE_FAULTS:
            self._acting.append(_Acting(fault, self._streams))
            return
        self._partitions.append(fault)
        for access in self.hit_by(fault):
            was_cut = access.is_cut
            access.cut(fault.kind, 1)
            if not was_cut:
                for client in access.clients:
                    client.link_cut()

    def end(self, fault: Fault) -> None:
        if fault.kind in MESSAGE_FAULTS:
            self._acting.remove(next(a for a in self._acting if a.fault == fault))
            return
        self._partitions.remove(fault)
        for access in self.hit_by(fault):
            access.cut(fault.kind, -1)
            self._resend(access)
            if not access.is_cut:
                for client in access.clients:
                    client.link_mended()

    def _carry_under_faults(
        self, access: Access, lane: Lane, up: bool, connection: Connection, packet: Packet
    ) -> None:
        delay_s, copies, late_s = 0.0, 1, 0.0
        place = access.place
        for acting in self._acting:
            if not acting.hits(place):
                continue
            fault, luck = acting.fault, acting.luck(place, up)
            if fault.kind is FaultKind.DELAY:
                delay_s += luck.random() * fault.amount
            elif luck.random() >= fault.amount:
                continue
            elif fault.kind is FaultKind.DROP:
                self._lose(packet, access, up, "fault")
                return
            elif fault.kind is FaultKind.DUPLICATE:
                copies += 1
                self._tell("message.duplicated", packet, access, "fault")
            else:
                late_s = luck.random() * REORDER_S_MAX
        for _ in range(copies):
            self._send(access, lane, up, connection, packet, delay_s, late_s)

    def _send(
        self,
        access: Access,
        lane: Lane,
        up: bool,
        connection: Connection,
        packet: Packet,
        delay_s: float,
        late_s: float = 0.0,
    ) -> None:
        link = access.place.link
        begins_s = max(self.loop.now_s, lane.busy_until_s)
        lane.busy_until_s = begins_s + packet.size_bytes / link.bytes_per_s
        arrives_s = max(lane.busy_until_s + access.one_way_s() + delay_s, lane.clear_s)
        if late_s:
            arrives_s += late_s
        else:
            lane.clear_s = arrives_s
        lane.pending += 1
        lane.pending_bytes += packet.size_bytes
        if lane.pending > self.pending_max:
            self.pending_max = lane.pending
        self.loop.call_at(arrives_s, partial(self._arrived, connection, up, packet))

    def _arrived(self, connection: Connection, up: bool, packet: Packet) -> None:
        access = connection.access
        lane = connection.up if up else connection.down
        if (access.cuts_up if up else access.cuts_down) or lane.held is not None:
            if lane.held is None:
                lane.held = []
                access.held = (*access.held, (connection, up))
            lane.held.append(packet)
            return
        self._hand_over(connection, up, packet)

    def _hand_over(self, connection: Connection, up: bool, packet: Packet) -> None:
        lane = connection.up if up else connection.down
        lane.pending -= 1
        lane.pending_bytes -= packet.size_bytes
        if up:
            self.to_broker(connection, packet)
            return
        if packet.kind is PacketKind.PUBLISH:
            self.bytes_down[connection.access.place.name] += packet.size_bytes
        connection.client.receive(connection, packet)

    def _resend(self, access: Access) -> None:
        for connection, up in access.held:
            if not (access.cuts_up if up else access.cuts_down):
                wait_s = access.luck.random() * RESEND_S_MAX
                self.loop.call_in(wait_s, partial(self._release, connection, up))

    def _release(self, connection: Connection, up: bool) -> None:
        access = connection.access
        lane = connection.up if up else connection.down
        if lane.held is None or (access.cuts_up if up else access.cuts_down):
            return
        held, lane.held = lane.held, None
        access.held = tuple(entry for entry in access.held if entry != (connection, up))
        for packet in held:
            self._hand_over(connection, up, packet)

    def _lose(self, packet: Packet, access: Access, up: bool, why: str) -> None:
        if up:
            # The broker took it and lost it: the sender never learns.
            packet.acked_at_s = self.loop.now_s
        self._tell("message.dropped", packet, access, why)

    def _tell(self, what: str, packet: Packet, access: Access, why: str) -> None:
        data = {"why": why, "topic": packet.topic}
        self._observe(Seen(self.loop.now_s, access.place.name, what, data))


def _nowhere(_connection: Connection, _packet: Packet) -> None:
    raise AssertionError("no broker stands at the end of these links")
