"""Documents of signed models; the metadata itself is TUF's own JSON."""

from typing import Any, Literal

from pydantic import Field

from edgeloop.documents.base import Document

UNSIGNED_SHOWN_MAX = 20


class SignatureCountDocument(Document):
    role: str
    by: str = Field(description="whose keys they are: `root 2`, `targets 5`")
    signed_by: list[str] = Field(description="ids of the keys whose signatures count")
    threshold: int


class TrustRoleDocument(Document):
    role: str = Field(description="root, targets, snapshot, timestamp, or a model's name")
    version: int
    expires: float
    state: Literal["valid", "expires_soon", "expired"]
    online: bool = Field(description="signed by the controller itself")
    threshold: int
    keys: list[str] = Field(description="ids of the keys that may sign it")
    signed_by: list[str]
    releases: int = Field(description="versions that it signs")


class WaitingDocument(Document):
    """Roles that change together, and lack signatures."""

    at: float = Field(description="when it came")
    documents: dict[str, Any] = Field(description="role → its metadata as proposed")
    signatures: list[SignatureCountDocument]
    problem: str = Field(description="why it can be accepted no more; empty: it can")


class TrustDocument(Document):
    initialised: bool = Field(description="once it is, nothing unsigned is offered")
    roles: list[TrustRoleDocument]
    waiting: int = Field(description="proposals that lack signatures")
    unsigned: list[str] = Field(
        description=f"published and not signed, NAME@VERSION, the newest {UNSIGNED_SHOWN_MAX}"
    )


class ProposalDocument(Document):
    """Role → metadata that is to change together, signed by whom it could be so far."""

    documents: dict[str, dict[str, Any]] = Field(min_length=1, max_length=64)


class ProposalOutcomeDocument(Document):
    accepted: bool = Field(description="in force; false: it waits for signatures")
    signatures: list[SignatureCountDocument]


class OnlineKeyDocument(Document):
    keyid: str
    key: dict[str, Any] = Field(description="the public key, as it stands in TUF metadata")


class OnlineKeysDocument(Document):
    """New keys of the controller's, to be put into a root."""

    snapshot: OnlineKeyDocument
    timestamp: OnlineKeyDocument


class DiscardedDocument(Document):
    role: str
