"""ASGI middleware: small artifacts are sent from memory, ahead of routing.

A fleet asks for the same manifest and the same small model all at once, and finding a route costs
several times what sending them does. Whole small files only: ranges, conditions, large files and
whatever is not found go on to the routes, which answer the same (`routes.artifacts`).
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from edgeloop_controller.artifacts import ArtifactStore
from edgeloop_controller.errors import NotFoundError
from edgeloop_protocol.limits import MIB

SMALL_MAX_BYTES: Final = MIB
SMALL_KEPT_MAX: Final = 16
PATH: Final = "/v1/artifacts/"
MEDIA_TYPE: Final = "application/octet-stream"
_ELSEWHERE: Final = frozenset({b"range", b"if-none-match"})


class SmallArtifacts:
    def __init__(self, app: ASGIApp, artifacts: ArtifactStore) -> None:
        self._app = app
        self._artifacts = artifacts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content = self._asked_for(scope)
        if content is None:
            await self._app(scope, receive, send)
            return
        headers = artifact_headers(scope["path"].removeprefix(PATH))
        headers |= {
            "accept-ranges": "bytes",
            "content-type": MEDIA_TYPE,
            "content-length": str(len(content)),
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": encoded})
        await send({"type": "http.response.body", "body": content})

    def _asked_for(self, scope: Scope) -> bytes | None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        if not scope["path"].startswith(PATH):
            return None
        if any(name in _ELSEWHERE for name, _ in scope["headers"]):
            return None
        try:
            path = self._artifacts.local_path(scope["path"].removeprefix(PATH))
            found = path.stat()
            if found.st_size > SMALL_MAX_BYTES:
                return None
            return _small(path, found.st_size, found.st_mtime_ns)
        except (NotFoundError, OSError):
            return None


def artifact_headers(digest: str) -> dict[str, str]:
    """The ETag is the digest: what it names never changes."""
    return {"etag": f'"{digest}"', "cache-control": "public, max-age=31536000, immutable"}


@lru_cache(maxsize=SMALL_KEPT_MAX)
def _small(path: Path, _size_bytes: int, _changed_ns: int) -> bytes:
    """A file that changed on disk is another key."""
    return path.read_bytes()
