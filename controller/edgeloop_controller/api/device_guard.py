"""ASGI middleware: over TLS, what is for devices needs a device's certificate; and a certificate
that is revoked opens nothing, from that moment, on connections that stand too.

Invariants: outside of what answers for artifacts; enrolment stays open, since whoever comes there
has no certificate yet, or a bad one; plain HTTP (loopback, or behind a proxy that ends TLS) is not
judged here.
"""

from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeloop_controller.api.errors import domain_response
from edgeloop_controller.api.peer import Peer, peer_of
from edgeloop_controller.errors import ControllerError, ForbiddenError, UnauthenticatedError
from edgeloop_controller.services.enrolment import Enrolment
from edgeloop_controller.services.people import People

FOR_DEVICES: Final = "/v1/artifacts/"
OPEN: Final = "/v1/enrolments"
API: Final = "/v1/"


class DeviceGuard:
    """`required`: the listener speaks TLS, and asks for certificates."""

    def __init__(self, app: ASGIApp, enrolment: Enrolment, people: People, required: bool) -> None:
        self._app = app
        self._enrolment = enrolment
        self._people = people
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._required and scope["type"] == "http" and scope["path"].startswith(API):
            try:
                await self._admit(scope)
            except ControllerError as error:
                await domain_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        path: str = scope["path"]
        if path.startswith(OPEN):
            return
        peer = peer_of(scope)
        if peer is not None:
            await self._admit_device(peer)
        elif path.startswith(FOR_DEVICES) and not await self._is_person(Headers(scope=scope)):
            raise UnauthenticatedError(
                "this is for devices, by their certificate, and for people, by their token",
                hint="enrol a device with `edgeloop-agent enroll`; people: EDGELOOP_TOKEN",
            )

    async def _admit_device(self, peer: Peer) -> None:
        device_id = self._enrolment.standing_seen(peer.serial) or await run_in_threadpool(
            self._enrolment.standing, peer.serial
        )
        if device_id != peer.name:
            raise ForbiddenError(
                f"the certificate of {peer.name!a} is revoked, or not one of ours",
                hint=f"`edgeloop device enroll --device {peer.name}` makes a token that lets it in",
            )

    async def _is_person(self, headers: Headers) -> bool:
        shown = headers.get("authorization")
        return (
            shown is not None and (await run_in_threadpool(self._people.who, shown)).authenticated
        )
