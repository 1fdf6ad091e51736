"""ASGI middleware: a request body above a limit is refused before it is held."""

from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeloop_controller.api.errors import error_response

JSON_MAX_BYTES: Final = 1024 * 1024
_MULTIPART: Final = "multipart/form-data"


class UploadLimit:
    """Multipart uploads up to `upload_max_bytes`, every other body up to JSON_MAX_BYTES."""

    def __init__(self, app: ASGIApp, upload_max_bytes: int) -> None:
        self._app = app
        self._upload_max_bytes = upload_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        multipart = headers.get("content-type", "").startswith(_MULTIPART)
        limit = self._upload_max_bytes if multipart else JSON_MAX_BYTES
        said = headers.get("content-length", "0")
        if said.isdigit() and int(said) > limit:
            message = f"the request body is {said} bytes; the limit is {limit}"
            hint = "raise [limits] upload_max_bytes of the controller" if multipart else ""
            await error_response(413, "too_large", message, hint)(scope, receive, send)
            return
        await self._app(scope, _counting(receive, limit), send)


def _counting(receive: Receive, limit: int) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the request body is above the limit of {limit} bytes")
        return message

    return counted
