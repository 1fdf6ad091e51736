"""Known devices: tokens, the approval queue, certificates; see `documents.base` and ADR 0033."""

from typing import Annotated, Literal

from pydantic import Field

from edgeloop.documents.base import Document
from edgeloop_protocol.enrolment import CERTIFICATE_MAX_CHARS, CSR_MAX_CHARS, TOKEN_MAX_CHARS
from edgeloop_protocol.limits import DEVICE_ID_MAX_CHARS, TEXT_MAX_CHARS
from edgeloop_protocol.messages import Name, Text

SIGNATURE_MAX_CHARS = 512
TOKEN_LIFETIME_S_DEFAULT = 86_400.0
TOKEN_LIFETIME_S_MAX = 90 * 86_400.0

Csr = Annotated[str, Field(max_length=CSR_MAX_CHARS, description="PEM; CN = the device id")]
Labels = Annotated[dict[Name, Text], Field(max_length=64)]


class EnrolmentAsked(Document):
    csr: Csr
    token: str | None = Field(default=None, max_length=TOKEN_MAX_CHARS)


class RenewalAsked(Document):
    """`signature`: base64, ECDSA with SHA-256 by the certificate's key over
    "edgeloop renewal v1", a zero byte, and the CSR in DER."""

    certificate: str = Field(max_length=CERTIFICATE_MAX_CHARS, description="PEM, the present one")
    csr: Csr
    signature: str = Field(max_length=SIGNATURE_MAX_CHARS)


class EnrolmentAnswer(Document):
    state: Literal["issued", "pending"]
    certificate: str | None = Field(description="PEM, with the authorities up to the root")
    authority: str = Field(description="PEM, of the authorities to trust")
    ask_again_s: float | None


class KeyConfirmed(Document):
    state: Literal["confirmed"] = "confirmed"


class AuthorityDocument(Document):
    authority: str = Field(description="PEM, of the authorities to trust")
    fingerprint: str = Field(description="SHA-256 of the first certificate, hexadecimal")


class EnrolmentDocument(Document):
    """A device that asked without a token; `key` is the SHA-256 of its public key."""

    id: int
    device_id: str
    key: str
    address: str
    first_asked_at: float
    asked_at: float
    state: Literal["pending", "approved", "rejected"]
    decided_at: float | None


class EnrolmentDecision(Document):
    approved: bool
    labels: Labels = Field(default_factory=dict)


class TokenAsked(Document):
    device_id: str | None = Field(default=None, max_length=DEVICE_ID_MAX_CHARS)
    labels: Labels = Field(default_factory=dict)
    lifetime_s: float = Field(
        default=TOKEN_LIFETIME_S_DEFAULT, gt=0, le=TOKEN_LIFETIME_S_MAX, allow_inf_nan=False
    )


class EnrolmentTokenDocument(Document):
    id: int
    device_id: str | None
    labels: dict[str, str]
    made_at: float
    expires_at: float
    spent_at: float | None
    spent_by: str | None


class EnrolmentTokenMade(EnrolmentTokenDocument):
    token: str = Field(description="shown this once")


class IdentityDocument(Document):
    """What a device is known by; `certificate_ends` of the newest."""

    device_id: str
    key: str
    enrolled_at: float
    certificate_ends: float | None
    key_is_to_change: bool
    revoked_at: float | None
    revoked_because: str
    cut_off_due: bool = Field(description="the broker is still to be told")


class RevocationRequest(Document):
    reason: str = Field(min_length=1, max_length=TEXT_MAX_CHARS)
