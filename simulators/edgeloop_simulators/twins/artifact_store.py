"""Artifacts of a controller in memory: the twin of its local directory.

Invariants: the same contract as the real one, but for `local_path`, which is for serving files:
there are none.
"""

import hashlib
from pathlib import Path

from edgeloop_controller.errors import NotFoundError


class MemoryArtifactStore:
    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._fresh: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._contents:
            self._contents[digest] = self._fresh[digest] = content
        return digest

    def fresh(self) -> dict[str, bytes]:
        """What was put since this was asked last."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def remove(self, digest: str) -> None:
        self._contents.pop(digest, None)

    def has(self, digest: str) -> bool:
        return digest in self._contents

    def get(self, digest: str) -> bytes:
        content = self._contents.get(digest)
        if content is None:
            raise NotFoundError(f"no artifact {digest!r}", hint="publish the version that names it")
        return content

    def local_path(self, digest: str) -> Path:
        raise NotFoundError(f"artifact {digest!r} is in memory", hint="use `get`")
