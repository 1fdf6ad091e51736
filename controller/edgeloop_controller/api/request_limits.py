"""ASGI middleware, outermost: how often an address may ask, and how long a body may take.

Invariants: nothing is looked up or recorded for a request above the rate; a connection whose
request was answered before it was read ends with the answer; artifacts are not counted, for a fleet
behind one address fetches them at once.
"""

import asyncio
import math
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeloop_controller.api.errors import error_response
from edgeloop_controller.config import LimitsConfig
from edgeloop_controller.core.request_rate import RequestRate
from edgeloop_protocol.clock import Clock

NOT_COUNTED: Final = "/v1/artifacts/"


class RequestLimits:
    def __init__(self, app: ASGIApp, limits: LimitsConfig, clock: Clock) -> None:
        self._app = app
        self._limits = limits
        self._clock = clock
        self._rate = RequestRate(limits.requests_per_s, limits.requests_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(NOT_COUNTED):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limits, self._clock)
        sending = body.closing(send) if _has_body(scope) else send
        client = scope.get("client")
        wait_s = self._rate.wait_s(client[0] if client else "", self._clock.monotonic())
        if wait_s > 0:
            refused = error_response(
                429,
                "too_many_requests",
                f"more than {self._limits.requests_per_s:g} requests a second from one address",
                "ask less often, or raise [limits] requests_per_s of the controller",
                {"Retry-After": str(math.ceil(wait_s))},
            )
            await refused(scope, receive, sending)
            return
        await self._app(scope, body.receive, sending)


class _Body:
    """Has to arrive; what comes after it (a disconnect) has all the time."""

    def __init__(self, receive: Receive, limits: LimitsConfig, clock: Clock) -> None:
        self._receive = receive
        self._limits = limits
        self._clock = clock
        self._ends_at = clock.monotonic() + limits.body_timeout_s
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        left_s = min(self._limits.body_silence_s, self._ends_at - self._clock.monotonic())
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, "the request's body did not arrive in time ([limits] body_timeout_s)"
            ) from None
        self._is_whole = not message.get("more_body", False)
        return message

    def closing(self, send: Send) -> Send:
        """Who is answered before all was read would go on sending for ever: no more is read."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and not self._is_whole:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return sent


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
