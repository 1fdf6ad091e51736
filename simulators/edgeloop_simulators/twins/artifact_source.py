"""Artifacts in memory: the twin of the controller's HTTP, with its faults.

Invariants: the same contract as the real one; `cut_after_bytes` ends the next read early, once, and
`reachable = False` stands for a controller or a network that is away.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from edgeloop_agent.errors import FetchMissingError, FetchUnreachableError
from edgeloop_protocol.limits import DOWNLOAD_CHUNK_BYTES


class MemoryArtifactSource:
    def __init__(self, artifacts: Mapping[str, bytes]) -> None:
        self.artifacts = dict(artifacts)
        self.reachable = True
        self.cut_after_bytes: int | None = None
        self.opened: list[tuple[str, int]] = []

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        self.opened.append((digest, offset))
        if not self.reachable:
            raise FetchUnreachableError("the controller is away")
        yield self._chunks(digest, offset)

    def _chunks(self, digest: str, offset: int) -> Iterator[bytes]:
        content = self.artifacts.get(digest)
        if content is None:
            raise FetchMissingError(f"no artifact {digest}")
        if offset > len(content):
            raise FetchUnreachableError(f"{digest} has no byte {offset}")
        end, cut = len(content), self.cut_after_bytes
        if cut is not None:
            self.cut_after_bytes = None
            end = min(end, offset + cut)
        for start in range(offset, end, DOWNLOAD_CHUNK_BYTES):
            yield content[start : min(end, start + DOWNLOAD_CHUNK_BYTES)]
        if end < len(content):
            raise FetchUnreachableError("the connection was cut")
