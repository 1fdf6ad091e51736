"""The error root of the client.

Invariants: an error's text says what and where, `hint` how to mend it (empty: nothing is known);
`str()` gives both.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeloop.documents.rollouts import RolloutDetail


class EdgeloopError(Exception):
    """Something that the client cannot do, or that the controller refuses."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ApiError(EdgeloopError):
    """The controller's refusal; `status` is None when none was reached.

    `code` is a stable name, as in docs/ARCHITECTURE.md.
    """

    def __init__(self, status: int | None, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


class AnswerError(EdgeloopError):
    """An answer of the controller's that this client cannot read."""


class MissingExtraError(EdgeloopError, ImportError):
    """A package that this needs is not installed; the hint says which extra brings it."""


class ModelError(EdgeloopError):
    """An object that cannot be published as a model."""


class RolloutHaltedError(EdgeloopError):
    """A rollout ended without being done: a gate or a person ended it."""

    def __init__(self, message: str, hint: str, document: "RolloutDetail") -> None:
        super().__init__(message, hint)
        self.document = document


class RolloutTimeoutError(EdgeloopError, TimeoutError):
    """A rollout that is followed did not end in time; it goes on without its follower."""

    def __init__(self, message: str, hint: str, document: "RolloutDetail") -> None:
        super().__init__(message, hint)
        self.document = document
