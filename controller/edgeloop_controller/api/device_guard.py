"""ASGI middleware: over TLS, what is for devices needs a device's certificate; and a certificate
that is revoked opens nothing, from that moment, on connections that stand too.

Invariants: outside of what answers for artifacts; enrolment stays open, since whoever comes there
has no certificate yet, or a bad one; plain HTTP (loopback, or behind a proxy that ends TLS) is not
judged here.
"""

from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeloop_controller.api.errors import error_response
from edgeloop_controller.api.peer import peer_of
from edgeloop_controller.services.enrolment import Enrolment

FOR_DEVICES: Final = "/v1/artifacts/"
OPEN: Final = "/v1/enrolments"
API: Final = "/v1/"


class DeviceGuard:
    """`required`: the listener speaks TLS, and asks for certificates."""

    def __init__(self, app: ASGIApp, enrolment: Enrolment, required: bool) -> None:
        self._app = app
        self._enrolment = enrolment
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._required and scope["type"] == "http" and scope["path"].startswith(API):
            refused = await self._refusal(scope)
            if refused is not None:
                status, message, hint = refused
                answer = error_response(status, "device_certificate", message, hint)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        path: str = scope["path"]
        if path.startswith(OPEN):
            return None
        peer = peer_of(scope)
        if peer is None:
            if not path.startswith(FOR_DEVICES):
                return None
            return (
                401,
                "this is for devices, by their certificate",
                "enrol: `edgeloop-agent enroll`",
            )
        device_id = self._enrolment.standing_seen(peer.serial) or await run_in_threadpool(
            self._enrolment.standing, peer.serial
        )
        if device_id == peer.name:
            return None
        hint = f"`edgeloop device enroll --device {peer.name}` makes a token that lets it in"
        return 403, f"the certificate of {peer.name!a} is revoked, or not one of ours", hint
