"""ASGI middleware, outermost: how often an address may ask, and how long a body may take.

Invariants: nothing is looked up or recorded for a request above the rate; artifacts are not
counted, for a fleet behind one address fetches them at once.
"""

import asyncio
import math
from typing import Final

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
            await refused(scope, receive, send)
            return
        await self._app(scope, self._timed(receive), send)

    def _timed(self, receive: Receive) -> Receive:
        """The body has to arrive; what comes after it (a disconnect) has all the time."""
        ends_at = self._clock.monotonic() + self._limits.body_timeout_s
        is_whole = False

        async def timed() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            left_s = min(self._limits.body_silence_s, ends_at - self._clock.monotonic())
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, "the request's body did not arrive in time ([limits] body_timeout_s)"
                ) from None
            is_whole = not message.get("more_body", False)
            return message

        return timed
