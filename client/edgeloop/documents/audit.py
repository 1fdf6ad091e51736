"""The document of the audit log."""

from typing import Any, Literal

from pydantic import Field

from edgeloop.documents.base import Document


class AuditDocument(Document):
    id: int
    at: float = Field(description="when the request came")
    request: str = Field(description="the same for all entries of one request")
    actor: str = Field(description="as the sender says")
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
