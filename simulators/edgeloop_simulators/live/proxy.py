"""A TCP proxy between devices and a broker or an artifact server, whose link turns bad on demand.

One `LinkProxy` is one link: one listening port, one target, one `Link` in force, so a device class
has a proxy of its own. `become` switches what the link does while connections live on it.

Invariants: at most WINDOW_BYTES of each direction wait in the proxy, then its sender is not read
any more (TCP pushes back); bytes are never lost, changed or reordered, only late, slow, stopped or
cut off; a partition drops what comes in vain as a dead link does: connections stay open in
silence, and new ones get no answer from the other side; `close` ends every connection.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from edgeloop_simulators.errors import SimulatorError

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 16 * 1024
WINDOW_BYTES: Final = 256 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
BACKLOG: Final = 4096
_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing sends RST."""


@dataclass(frozen=True, slots=True)
class Link:
    """`latency_s` is added one way; `bandwidth_bytes_per_s` is of each connection and direction.

    `stalled`: connections are taken, and not a byte passes. `partitioned`: neither does a new
    connection reach the target.
    """

    latency_s: float = 0.0
    bandwidth_bytes_per_s: float | None = None
    stalled: bool = False
    partitioned: bool = False

    def __post_init__(self) -> None:
        if self.latency_s < 0:
            raise SimulatorError(f"latency_s is {self.latency_s}: it must be 0 or more")
        speed = self.bandwidth_bytes_per_s
        if speed is not None and speed <= 0:
            raise SimulatorError(
                f"bandwidth_bytes_per_s is {speed}: it must be above 0; use stalled for a link "
                "on which nothing passes"
            )

    @property
    def passes(self) -> bool:
        return not (self.stalled or self.partitioned)


class LinkProxy:
    """Call everything on the loop that runs it."""

    def __init__(self, target_host: str, target_port: int, link: Link | None = None) -> None:
        self._target = (target_host, target_port)
        self.link = link or Link()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(
            self._accept, HOST, port, limit=CHUNK_BYTES, backlog=BACKLOG
        )
        return int(self._server.sockets[0].getsockname()[1])

    def become(self, link: Link) -> None:
        """What is underway already keeps the delay that it was given."""
        self.link = link
        self._changed.set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """Cut every connection at once (RST to the device)."""
        for task, writer in tuple(self._connections.items()):
            _cut(writer)
            task.cancel()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._connections)
        self.reset()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def passable(self) -> None:
        """Return when bytes pass."""
        while not self.link.passes:
            await self._changed.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            _cut(writer)
        finally:
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.link.partitioned:
            await self._changed.wait()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_Direction(self, reader, far_writer).run())
                both.create_task(_Direction(self, far_reader, writer).run())
        except* OSError:
            _cut(writer)  # one side is gone without a word: so is the other
        finally:
            far_writer.close()


def _cut(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


class _Direction:
    """Bytes one way: read, held back for the latency, written at the link's speed."""

    def __init__(
        self, proxy: LinkProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take())
            both.create_task(self._give())

    async def _take(self) -> None:
        """An empty chunk at the end says that there is no more."""
        chunk = b"first"
        while chunk:
            while self._waiting_bytes >= WINDOW_BYTES:
                await self._wait()
            chunk = await self._reader.read(CHUNK_BYTES)
            self._waiting.append((time.monotonic() + self._proxy.link.latency_s, chunk))
            self._waiting_bytes += len(chunk)
            self._moved.set()

    async def _give(self) -> None:
        while True:
            while not self._waiting:
                await self._wait()
            due, chunk = self._waiting[0]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._proxy.passable()
            if not chunk:
                with contextlib.suppress(OSError):
                    self._writer.write_eof()
                return
            speed = self._proxy.link.bandwidth_bytes_per_s
            if speed is not None:
                await asyncio.sleep(len(chunk) / speed)
                await self._proxy.passable()
            self._writer.write(chunk)
            await self._writer.drain()
            self._waiting.popleft()
            self._waiting_bytes -= len(chunk)
            self._moved.set()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()
