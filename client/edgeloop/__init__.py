"""Edgeloop's Python client: `from edgeloop import Fleet`.

Invariant: `import edgeloop` imports nothing; a name below is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgeloop.client import Client
    from edgeloop.errors import (
        AnswerError,
        ApiError,
        EdgeloopError,
        MissingExtraError,
        ModelError,
        RolloutHaltedError,
        RolloutTimeoutError,
    )
    from edgeloop.fleet import Fleet
    from edgeloop.rollout import Rollout

_MODULES: Final = {
    "AnswerError": "edgeloop.errors",
    "ApiError": "edgeloop.errors",
    "Client": "edgeloop.client",
    "EdgeloopError": "edgeloop.errors",
    "Fleet": "edgeloop.fleet",
    "MissingExtraError": "edgeloop.errors",
    "ModelError": "edgeloop.errors",
    "Rollout": "edgeloop.rollout",
    "RolloutHaltedError": "edgeloop.errors",
    "RolloutTimeoutError": "edgeloop.errors",
}

__all__ = [
    "AnswerError",
    "ApiError",
    "Client",
    "EdgeloopError",
    "Fleet",
    "MissingExtraError",
    "ModelError",
    "Rollout",
    "RolloutHaltedError",
    "RolloutTimeoutError",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'edgeloop' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
