"""The controller's artifacts as devices meet them over their links: late, slow, cut, or wrong.

Invariants: behind the agent's ArtifactSource port, held to the same contract as the real one while
no fault is on; time passes in the task that reads; every wait ends by the real client's timeouts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from edgeloop_agent.errors import FetchMissingError, FetchUnreachableError
from edgeloop_agent.shell.http_source import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from edgeloop_protocol.limits import DOWNLOAD_CHUNK_BYTES
from edgeloop_simulators.virtual.kernel.streams import Luck, Streams
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind

ENDLESS_BYTES: Final = 1 << 22
"""What a server sends that never stops: more than any client here should take."""

KINDS: Final = frozenset(
    {
        FaultKind.SLOW_DOWNLOAD,
        FaultKind.STALLED_DOWNLOAD,
        FaultKind.CORRUPT_DOWNLOAD,
        FaultKind.MALICIOUS_SERVER,
    }
)

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Reply:
    content: bytes
    cut: bool = False
    """The connection breaks at the end of `content`."""


class ArtifactServer:
    """`stored`: what the controller has under a digest; None while the controller is down."""

    def __init__(
        self,
        network: Network,
        streams: Streams,
        stored: Callable[[str], bytes | None],
        chunks_a_file: int,
    ) -> None:
        self.chunks_a_file = chunks_a_file
        self._network = network
        self._streams = streams
        self._stored = stored
        self._faults: list[Fault] = []
        self.bytes_down: dict[str, int] = {}
        """Of artifacts, by place."""
        self.spoilt: dict[str, int] = {}
        """Answers with other bytes than those asked for, by place."""

    def begin(self, fault: Fault) -> None:
        self._faults.append(fault)

    def end(self, fault: Fault) -> None:
        self._faults.remove(fault)

    def source(
        self, place: Place, sleep: Sleep, bytes_per_s_max: float = 0.0
    ) -> "VirtualArtifactSource":
        """`bytes_per_s_max`: the agent's own cap; 0: none."""
        luck = self._streams.of_device(f"artifacts/{place.name}")
        return VirtualArtifactSource(self, place, sleep, luck, bytes_per_s_max)

    def reply(self, place: Place, digest: str, offset: int, luck: Luck) -> _Reply:
        """Raises FetchUnreachableError."""
        content = self._stored(digest)
        if content is None:
            raise FetchMissingError(f"the controller has no artifact {digest}")
        if offset > len(content):
            raise FetchUnreachableError(f"{digest} has no byte {offset}")
        rest = content[offset:]
        if luck.random() < self._amount(FaultKind.MALICIOUS_SERVER, place):
            self._count_spoilt(place)
            return _malicious(rest, luck)
        if rest and luck.random() < self._amount(FaultKind.CORRUPT_DOWNLOAD, place):
            self._count_spoilt(place)
            rest = _with_flipped_bit(rest, luck)
        if luck.random() < place.link.loss:
            return _Reply(rest[: luck.randint(0, len(rest))], cut=True)
        return _Reply(rest)

    def _count_spoilt(self, place: Place) -> None:
        self.spoilt[place.name] = self.spoilt.get(place.name, 0) + 1

    def reaches(self, place: Place) -> bool:
        network = self._network
        return network.reaches(place, up=True) and network.reaches(place, up=False)

    def is_stalled(self, place: Place) -> bool:
        return any(self._on(FaultKind.STALLED_DOWNLOAD, place))

    def bytes_per_s(self, place: Place) -> float:
        slow = [fault.amount for fault in self._on(FaultKind.SLOW_DOWNLOAD, place)]
        return max(1.0, min([place.link.bytes_per_s, *slow]))

    def _amount(self, kind: FaultKind, place: Place) -> float:
        return max((fault.amount for fault in self._on(kind, place)), default=0.0)

    def _on(self, kind: FaultKind, place: Place) -> Iterator[Fault]:
        return (
            fault
            for fault in self._faults
            if fault.kind is kind and fault.hits(place.name, place.site, place.kind)
        )


class VirtualArtifactSource:
    """One device's ArtifactSource; `sleep` passes virtual time in the task that reads."""

    __slots__ = ("_bytes_per_s_max", "_luck", "_place", "_server", "_sleep")

    def __init__(
        self,
        server: ArtifactServer,
        place: Place,
        sleep: Sleep,
        luck: Luck,
        bytes_per_s_max: float,
    ) -> None:
        self._server = server
        self._place = place
        self._sleep = sleep
        self._luck = luck
        self._bytes_per_s_max = bytes_per_s_max or float("inf")

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        link = self._place.link
        self._sleep(2 * (link.latency_s + self._luck.random() * link.jitter_s))
        if not self._server.reaches(self._place):
            self._sleep(CONNECT_TIMEOUT_S)
            raise FetchUnreachableError("the controller does not answer")
        yield self._chunks(self._server.reply(self._place, digest, offset, self._luck))

    def _chunks(self, reply: _Reply) -> Iterator[bytes]:
        content, server, name = reply.content, self._server, self._place.name
        step = min(DOWNLOAD_CHUNK_BYTES, max(1, -(-len(content) // server.chunks_a_file)))
        for start in range(0, len(content), step):
            chunk = content[start : start + step]
            bytes_per_s = min(server.bytes_per_s(self._place), self._bytes_per_s_max)
            self._sleep(len(chunk) / bytes_per_s)
            if server.is_stalled(self._place) or not server.reaches(self._place):
                self._sleep(READ_TIMEOUT_S)
                raise FetchUnreachableError("no byte came in time")
            server.bytes_down[name] = server.bytes_down.get(name, 0) + len(chunk)
            yield chunk
        if reply.cut:
            raise FetchUnreachableError("the connection was cut")


def _malicious(rest: bytes, luck: Luck) -> _Reply:
    """Whatever a server might send that is not ours."""
    match luck.randrange(4):
        case 0:
            return _Reply(luck.randbytes(len(rest)))
        case 1:
            return _Reply(rest + luck.randbytes(ENDLESS_BYTES))
        case 2:
            return _Reply(rest[: luck.randint(0, len(rest))])
        case _:
            return _Reply(b'{"error": {"code": "not_found"}}')


def _with_flipped_bit(content: bytes, luck: Luck) -> bytes:
    changed = bytearray(content)
    place = luck.randrange(len(changed) * 8)
    changed[place // 8] ^= 1 << (place % 8)
    return bytes(changed)
