"""Tables of known devices: tokens, the approval queue, identities, certificates (ADR 0033).

Invariants: no secret is kept, only the SHA-256 of a token; a certificate's row is never taken away
while the certificate could still be shown.
"""

from typing import Any

from sqlalchemy import String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgeloop_controller.store.tables import Base


class EnrolmentToken(Base):
    __tablename__ = "enrolment_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    made_at: Mapped[float]
    expires_at: Mapped[float]
    device_id: Mapped[str | None]
    labels: Mapped[dict[str, Any]]
    spent_at: Mapped[float | None]
    spent_by: Mapped[str | None]
    spent_on_key: Mapped[str | None] = mapped_column(String(64))


class EnrolmentRequest(Base):
    """A device without a token that waits, or waited, for a person."""

    __tablename__ = "enrolment_requests"
    __table_args__ = (UniqueConstraint("device_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    key: Mapped[str] = mapped_column(String(64))
    address: Mapped[str]
    first_asked_at: Mapped[float]
    asked_at: Mapped[float]
    state: Mapped[str] = mapped_column(String(16), index=True)
    decided_at: Mapped[float | None]
    labels: Mapped[dict[str, Any]]


class DeviceIdentity(Base):
    """What a device id was enrolled as; may be older than the device's first hello."""

    __tablename__ = "device_identities"

    device_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the newest public key that a certificate was made for."""
    labels: Mapped[dict[str, Any]]
    enrolled_at: Mapped[float]
    key_is_to_change: Mapped[bool]
    revoked_at: Mapped[float | None]
    revoked_because: Mapped[str] = mapped_column(Text, default="")
    cut_off_due: Mapped[bool] = mapped_column(index=True)
    """The broker still has to be told, and to end the device's connection."""


class DeviceCertificate(Base):
    __tablename__ = "device_certificates"

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)
    device_id: Mapped[str] = mapped_column(index=True)
    key: Mapped[str] = mapped_column(String(64))
    begins: Mapped[float]
    ends: Mapped[float] = mapped_column(index=True)
    revoked_at: Mapped[float | None]
