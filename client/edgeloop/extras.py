"""Packages that only some of the client needs: named by the extra that brings them."""

from importlib import import_module
from typing import Any

from edgeloop.errors import MissingExtraError


def require(module: str, extra: str, doing: str) -> Any:
    """The module, imported. Raises MissingExtraError."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{doing} needs {error.name}, which is not installed",
            f"pip install 'edgeloop[{extra}]'",
        ) from error
