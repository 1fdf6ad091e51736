"""The error root of the client.

Invariants: an error's text says what and where, `hint` how to mend it (empty: nothing is known);
`str()` gives both.
"""


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
