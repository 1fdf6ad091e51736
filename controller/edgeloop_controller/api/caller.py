"""Who asks, for the routes that keep it: put there by `api.guard`."""

from typing import Annotated, cast

from fastapi import Depends, Request

from edgeloop_controller.api.guard import CALLER
from edgeloop_controller.core.access import ANYBODY, Caller


async def _caller(request: Request) -> Caller:
    return cast(Caller, request.scope.get(CALLER, ANYBODY))


Asking = Annotated[Caller, Depends(_caller)]
