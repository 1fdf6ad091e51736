"""Downloads of a whole fleet on one loop: real HTTP over a few kept connections, the agents' own
Downloader for all that is decided.

The Downloader reads from an ArtifactSource that blocks; here nothing may. So a fetch is performed
with the bytes that are at hand; where it asks for others it is given up, they are fetched, and it
is performed again: it goes on where it was, as after a restart.

Invariants: at most CONNECTIONS_MAX requests are underway for a server; a fetch is answered with
exactly one event, in the order in which a device asked; what is stored was verified by the
Downloader; equal bodies share their memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import h11

from edgeloop_agent.core.events import FetchFailed, FetchProblem
from edgeloop_agent.errors import FetchUnreachableError
from edgeloop_agent.ports import Fetch, Post
from edgeloop_agent.shell.download import DISK_RESERVE_BYTES, Downloader
from edgeloop_agent.shell.fetch import FetchEvent, perform
from edgeloop_agent.shell.http_source import CONNECT_TIMEOUT_S
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_protocol.limits import DOWNLOAD_CHUNK_BYTES
from edgeloop_protocol.manifest import parse_manifest
from edgeloop_protocol.messages import Inventory
from edgeloop_simulators.live.artifact_connection import Answer, ArtifactConnection

CONNECTIONS_MAX: Final = 32
BODIES_SHARED_MAX: Final = 64
MANIFESTS_PARSED_MAX: Final = 16
ROUNDS_MAX: Final = 8
"""Of asking for other bytes, in one fetch; the Downloader needs two."""


_parse: Final = lru_cache(maxsize=MANIFESTS_PARSED_MAX)(parse_manifest)
"""Ten thousand devices parse the same manifest; a bad one is parsed, and refused, each time."""


@dataclass(frozen=True, slots=True)
class Body:
    """What came of an artifact from `offset` on; `problem`: why no more came."""

    content: bytes
    problem: str = ""


class _Wanted(BaseException):
    """The Downloader asks for bytes that are not at hand."""

    def __init__(self, digest: str, offset: int) -> None:
        self.digest, self.offset = digest, offset


class _AtHand:
    """The ArtifactSource that a fetch is performed with."""

    def __init__(self) -> None:
        self.bodies: dict[tuple[str, int], Body] = {}

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        body = self.bodies.pop((digest, offset), None)
        if body is None:
            raise _Wanted(digest, offset)
        yield _chunks(body)


def _chunks(body: Body) -> Iterator[bytes]:
    content = body.content
    for start in range(0, len(content), DOWNLOAD_CHUNK_BYTES):
        yield content[start : start + DOWNLOAD_CHUNK_BYTES]
    if body.problem:
        raise FetchUnreachableError(body.problem)


class ArtifactServer:
    """One server's artifacts, `{url}/v1/artifacts/{digest}`, for all devices of the loop."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._path = f"{parts.path.rstrip('/')}/v1/artifacts"
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._kept: list[ArtifactConnection] = []
        self._shared: dict[tuple[str, int], bytes] = {}
        """The last that came, by digest and offset."""
        self.requests = 0
        self.bytes_down = 0

    async def get(self, digest: str, offset: int) -> Body:
        """Raises nothing: a body that did not come whole says why."""
        async with self._free:
            body = await self._get(digest, offset)
        self.requests += 1
        self.bytes_down += len(body.content)
        return Body(self._share((digest, offset), body.content), body.problem)

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()

    async def _get(self, digest: str, offset: int) -> Body:
        what = f"http://{self._host}:{self._port}{self._path}/{digest}"
        while True:
            is_kept = bool(self._kept)
            answer = Answer(offset)
            try:
                connection = self._kept.pop() if is_kept else await self._connect()
                await self._ask(connection, f"{self._path}/{digest}", answer)
            except (OSError, h11.ProtocolError) as error:  # TimeoutError is an OSError
                if is_kept and not answer.status:
                    continue  # the server had closed it meanwhile
                return Body(answer.content, f"{what}: {error or type(error).__name__}")
            return Body(answer.content, answer.problem(what))

    async def _ask(self, connection: ArtifactConnection, path: str, answer: Answer) -> None:
        try:
            await connection.ask(path, answer)
        except BaseException:
            connection.close()
            raise
        if connection.is_usable:
            self._kept.append(connection)
        else:
            connection.close()

    async def _connect(self) -> ArtifactConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: ArtifactConnection(self._host), self._host, self._port
            )
        return connection

    def _share(self, what: tuple[str, int], content: bytes) -> bytes:
        known = self._shared.get(what)
        if known == content:
            return known
        if len(self._shared) >= BODIES_SHARED_MAX:
            self._shared.clear()
        self._shared[what] = content
        return content


@dataclass(slots=True)
class LoopFetcher:
    """A `Fetcher` on the loop; `post` must not act at once but later, on the loop."""

    server: ArtifactServer
    store: ModelStore
    take_inventory: Callable[[], Inventory]
    post: Post
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    _wanted: frozenset[str] = frozenset()
    _fetches: deque[Fetch] = field(default_factory=deque)
    _working: "asyncio.Task[None] | None" = None
    _stopped: bool = False

    def start(self) -> None:
        """There is nothing to start."""

    def submit(self, fetch: Fetch) -> None:
        self._wanted |= {fetch.offer.manifest_digest}
        self._fetches.append(fetch)
        if self._working is None and not self._stopped:
            self._working = asyncio.get_running_loop().create_task(self._work())

    def keep(self, manifests: frozenset[str]) -> None:
        self._wanted = manifests

    def stop(self) -> None:
        """What is underway is given up: it resumes after the restart."""
        self._wanted, self._stopped = frozenset(), True
        if self._working is not None:
            self._working.cancel()

    async def _work(self) -> None:
        while self._fetches:
            self.post(await self._perform(self._fetches.popleft()))
        self._working = None

    async def _perform(self, fetch: Fetch) -> FetchEvent:
        digest = fetch.offer.manifest_digest
        source = _AtHand()
        downloader = Downloader(source, self.store, self.disk_reserve_bytes)
        for _ in range(ROUNDS_MAX):
            try:
                return perform(
                    fetch,
                    downloader,
                    self.take_inventory,
                    lambda: digest not in self._wanted,
                    _parse,
                )
            except _Wanted as wanted:
                if digest not in self._wanted:
                    break
                body = await self.server.get(wanted.digest, wanted.offset)
                source.bodies[wanted.digest, wanted.offset] = body
        return FetchFailed(fetch.slot, digest, FetchProblem.WAIT, "no longer wanted")
