"""Artifacts and manifests by digest: bytes, by ranges, cacheable for ever.

A fleet asks for one small artifact all at once: it is read once and sent from memory, on the
server's own loop, since each change to another thread costs more than sending it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from edgeloop_controller.api.context import Context
from edgeloop_protocol.limits import MIB

SMALL_MAX_BYTES: Final = MIB
SMALL_KEPT_MAX: Final = 16

router = APIRouter(tags=["artifacts"])


@router.head("/artifacts/{digest}", operation_id="head_artifact", response_class=FileResponse)
@router.get("/artifacts/{digest}", operation_id="get_artifact", response_class=FileResponse)
async def artifact(
    digest: str,
    services: Context,
    if_none_match: Annotated[str | None, Header()] = None,
    range_: Annotated[str | None, Header(alias="range", include_in_schema=False)] = None,
) -> Response:
    """The ETag is the digest, so Range with If-Range resumes exactly this content."""
    path = services.artifacts.local_path(digest)
    headers = {"etag": f'"{digest}"', "cache-control": "public, max-age=31536000, immutable"}
    asked = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if headers["etag"] in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    kind, found = "application/octet-stream", path.stat()
    if range_ is not None or found.st_size > SMALL_MAX_BYTES:
        return FileResponse(path, media_type=kind, headers=headers)
    content = _small(path, found.st_size, found.st_mtime_ns)
    headers["accept-ranges"] = "bytes"
    return Response(content, media_type=kind, headers=headers)


@lru_cache(maxsize=SMALL_KEPT_MAX)
def _small(path: Path, _size_bytes: int, _changed_ns: int) -> bytes:
    """A file that changed on disk is another key."""
    return path.read_bytes()
