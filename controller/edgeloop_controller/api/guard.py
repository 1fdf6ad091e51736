"""ASGI middleware: who asks, and may they (ADR 0030).

Invariants: inside of the audit log's, so that what is refused here is recorded; nothing below /v1
is reached past it but what core.access calls open; where nobody has to say who they are, a page of
another site cannot ask in the name of whoever looks at it.
"""

from typing import Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeloop_controller.api.errors import domain_response
from edgeloop_controller.core.access import ANYBODY, Caller, is_open, needed, roles_with
from edgeloop_controller.errors import (
    ControllerError,
    ForbiddenError,
    UnauthenticatedError,
)
from edgeloop_controller.services.people import People
from edgeloop_controller.store import audit
from edgeloop_protocol.loopback import is_loopback

PREFIX: Final = "/v1/"
CALLER: Final = "edgeloop_caller"
CHALLENGE: Final = 'Bearer realm="edgeloop"'
"""RFC 6750, 3: what a 401 is answered with."""


class Guard:
    """`hosts`: names under which the API may be reached where nobody has to say who they are."""

    def __init__(self, app: ASGIApp, people: People, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._people = people
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        if is_open(scope["method"], scope["path"]):
            scope[CALLER] = ANYBODY
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            caller = await run_in_threadpool(self._people.who, headers.get("authorization"))
            self._admit(caller, scope, headers)
        except ControllerError as error:
            response = domain_response(error)
            if isinstance(error, UnauthenticatedError):
                response.headers["WWW-Authenticate"] = CHALLENGE
            await response(scope, receive, send)
            return
        scope[CALLER] = caller
        await self._app(scope, receive, send)

    def _admit(self, caller: Caller, scope: Scope, headers: Headers) -> None:
        if not caller.authenticated:
            self._refuse_other_sites(headers)
            return
        audit.identify(caller.name)
        permission = needed(scope["method"], scope["path"])
        if not caller.may(permission):
            roles = ", ".join(sorted(caller.roles)) or "no role"
            raise ForbiddenError(
                f"{caller.name} ({roles}) may not {permission} here",
                hint=f"that is for: {', '.join(roles_with(permission))}; an admin gives roles",
            )

    def _refuse_other_sites(self, headers: Headers) -> None:
        host = _hostname(f"//{headers.get('host', '')}")
        if not (is_loopback(host) or host in self._hosts):
            raise ForbiddenError(
                f"this controller does not go by the name {host!a}",
                hint="it asks nobody who they are, so it answers to loopback's names only: add "
                "the name to [access] hosts, or set [access] require = true",
            )
        origin = headers.get("origin")
        if origin is not None and _hostname(origin) != host:
            raise ForbiddenError(
                f"a page of {origin[:200]!a} may not ask this controller",
                hint="ask it from no other site's page, or with [access] require = true",
            )


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
