"""The error root of the protocol package. An error's text says what, where and how to mend it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who applies a patch in a small process pays for no pydantic
    from pydantic import ValidationError


class ProtocolError(Exception):
    """Something that crossed a boundary does not keep the wire contract."""


class MessageError(ProtocolError):
    """A payload is oversized, is not JSON, or does not fit its message type."""


class TopicError(ProtocolError):
    """A topic or a device id is not of the form that docs/spec/wire.md gives."""


class ManifestError(ProtocolError):
    """A model manifest contradicts itself or lacks what the operation needs."""


class ConfigError(ProtocolError):
    """A configuration file or an EDGELOOP_ variable cannot be used; names the key and the mend."""


class PatchError(ProtocolError):
    """A patch is damaged, hostile or for another base: the full file is to be used instead."""


class SelectorError(ProtocolError):
    """A selector that does not parse; names the position, and `hint` the mend."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TrustError(ProtocolError):
    """What is signed, or is to be, does not keep the rules of docs/adr/0031-signed-models.md."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def first_problem(error: "ValidationError") -> str:
    """`key.of.the.problem: what is wrong`, of the first problem that pydantic found."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"
