"""Artifacts and manifests by digest: bytes, by ranges, cacheable for ever. Small ones that are
asked for whole are sent ahead of this (`api.small_artifacts`)."""

from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from edgeloop_controller.api.context import Context
from edgeloop_controller.api.small_artifacts import MEDIA_TYPE, artifact_headers

router = APIRouter(tags=["artifacts"])


@router.head("/artifacts/{digest}", operation_id="head_artifact", response_class=FileResponse)
@router.get("/artifacts/{digest}", operation_id="get_artifact", response_class=FileResponse)
async def artifact(
    digest: str,
    services: Context,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The ETag is the digest, so Range with If-Range resumes exactly this content."""
    path = services.artifacts.local_path(digest)
    headers = artifact_headers(digest)
    asked = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if headers["etag"] in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=MEDIA_TYPE, headers=headers)
