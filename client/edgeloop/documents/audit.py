"""The document of the audit log, and the chain that its entries make.

Invariants: `chain_of` is the one definition of the chain, for the controller that writes it and for
whoever verifies what the controller says.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from edgeloop.documents.base import Document

CHAINED: Final = (
    "at",
    "request",
    "actor",
    "authenticated",
    "address",
    "forwarded_for",
    "method",
    "path",
    "subject",
    "created",
    "essence",
    "outcome",
    "status",
    "detail",
    "passed_over",
)
"""The fields that an entry's link is made of: all but its number and the link."""


class AuditDocument(Document):
    id: int
    at: float = Field(description="when the request came")
    request: str = Field(description="the same for all entries of one request")
    actor: str = Field(description="who asked: proved if `authenticated`, else as the sender says")
    authenticated: bool = Field(description="false: nobody checked who it was")
    address: str = Field(description="of the peer: of a proxy, where there is one")
    forwarded_for: str = Field(description="X-Forwarded-For as it came: anybody can claim it")
    method: str
    path: str
    subject: str = Field(description="`rollout:4`, `device:watch-3`, `version:watch@2` …")
    created: str = Field(description="what it made, as `rollout:4`")
    essence: dict[str, Any] = Field(description="the request's body, shortened")
    outcome: Literal["done", "refused", "failed"]
    status: int | None = Field(description="of HTTP; null: committed with the change itself")
    detail: str = Field(description="why it was refused, or failed")
    passed_over: int = Field(description="refused requests before it that have no entry")
    chain: str | None = Field(
        description="SHA-256 over the entry before and this one; null: older than the chain"
    )


def chain_of(before: str, entry: Mapping[str, Any]) -> str:
    """The link of an entry after one whose link is `before`, which is empty for the first."""
    fields = [entry[name] for name in CHAINED]
    text = json.dumps([before, *fields], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
