"""Queries over enrolment tokens, the approval queue, device identities and their certificates."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from edgeloop_controller.core import enrolment as core
from edgeloop_controller.errors import NotFoundError
from edgeloop_controller.store.identity_tables import (
    DeviceCertificate,
    DeviceIdentity,
    EnrolmentRequest,
    EnrolmentToken,
)

SHOWN_MAX: Final = 1000
_ID: Final = DeviceIdentity.device_id


def token_of(session: Session, digest: str) -> EnrolmentToken | None:
    return session.scalar(select(EnrolmentToken).where(EnrolmentToken.digest == digest))


def tokens(session: Session) -> Sequence[EnrolmentToken]:
    """The newest, newest first."""
    query = select(EnrolmentToken).order_by(EnrolmentToken.id.desc()).limit(SHOWN_MAX)
    return session.scalars(query).all()


def tokens_open(session: Session, now: float) -> int:
    query = select(func.count()).select_from(EnrolmentToken)
    unspent = (EnrolmentToken.spent_at.is_(None), EnrolmentToken.expires_at > now)
    return session.scalar(query.where(*unspent)) or 0


def require_token(session: Session, token_id: int) -> EnrolmentToken:
    """Raises NotFoundError."""
    found = session.get(EnrolmentToken, token_id)
    if found is None:
        raise NotFoundError(
            f"no enrolment token {token_id}", hint="`edgeloop device tokens` shows those there are"
        )
    return found


def request_of(session: Session, device_id: str, key: str) -> EnrolmentRequest | None:
    query = select(EnrolmentRequest).where(
        EnrolmentRequest.device_id == device_id, EnrolmentRequest.key == key
    )
    return session.scalar(query)


def require_request(session: Session, request_id: int) -> EnrolmentRequest:
    """Raises NotFoundError."""
    found = session.get(EnrolmentRequest, request_id)
    if found is None:
        raise NotFoundError(
            f"no enrolment {request_id} waits here",
            hint="`edgeloop device enrolments` shows those that do",
        )
    return found


def requests(session: Session, state: str | None) -> Sequence[EnrolmentRequest]:
    query = select(EnrolmentRequest).order_by(EnrolmentRequest.id.desc()).limit(SHOWN_MAX)
    if state is not None:
        query = query.where(EnrolmentRequest.state == state)
    return session.scalars(query).all()


def pending(session: Session, address: str | None = None) -> int:
    query = select(func.count()).select_from(EnrolmentRequest)
    query = query.where(EnrolmentRequest.state == "pending")
    if address is not None:
        query = query.where(EnrolmentRequest.address == address)
    return session.scalar(query) or 0


def forget_pending(session: Session, asked_before: float) -> None:
    session.execute(
        delete(EnrolmentRequest).where(
            EnrolmentRequest.state == "pending", EnrolmentRequest.asked_at < asked_before
        )
    )


def identity(session: Session, device_id: str) -> DeviceIdentity | None:
    return session.get(DeviceIdentity, device_id)


def require_identity(session: Session, device_id: str) -> DeviceIdentity:
    """Raises NotFoundError."""
    found = session.get(DeviceIdentity, device_id)
    if found is None:
        raise NotFoundError(
            f"device {device_id!r} is not enrolled",
            hint=f"`edgeloop device enroll --device {device_id}` makes a token for it",
        )
    return found


def known(row: DeviceIdentity | None) -> core.Identity | None:
    return None if row is None else core.Identity(row.key, row.revoked_at is not None)


def labels_of(session: Session, device_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """What they were enrolled with, of those that were: for their first hello."""
    if not device_ids:
        return {}
    query = select(DeviceIdentity.device_id, DeviceIdentity.labels)
    return {row[0]: row[1] for row in session.execute(query.where(_ID.in_(device_ids)))}


def admitted(session: Session, now: float) -> Sequence[core.DeviceKey]:
    """The keys that devices may connect by: of certificates that are valid and not revoked."""
    found = session.execute(
        select(DeviceCertificate.device_id, DeviceCertificate.key)
        .where(DeviceCertificate.revoked_at.is_(None), DeviceCertificate.ends > now)
        .distinct()
        .order_by(DeviceCertificate.device_id, DeviceCertificate.key)
    )
    return [core.DeviceKey(*row) for row in found]


def revoked_keys(session: Session, device_id: str, now: float) -> Sequence[str]:
    """The device's keys of revoked certificates that have not run out."""
    query = select(DeviceCertificate.key).where(
        DeviceCertificate.device_id == device_id,
        DeviceCertificate.revoked_at.is_not(None),
        DeviceCertificate.ends > now,
    )
    return session.scalars(query.distinct().order_by(DeviceCertificate.key)).all()


def to_be_cut_off(session: Session) -> Sequence[str]:
    query = select(DeviceIdentity.device_id).where(DeviceIdentity.cut_off_due)
    return session.scalars(query.order_by(DeviceIdentity.device_id)).all()


def certificate(session: Session, serial: str) -> DeviceCertificate | None:
    return session.get(DeviceCertificate, serial)


def newest_certificate(session: Session, device_id: str) -> DeviceCertificate | None:
    query = select(DeviceCertificate).where(DeviceCertificate.device_id == device_id)
    return session.scalar(query.order_by(DeviceCertificate.ends.desc()).limit(1))


def revoke_certificates(
    session: Session, device_id: str, now: float, except_key: str | None = None
) -> int:
    """How many were not revoked yet; `except_key`: of other keys only."""
    which = [
        DeviceCertificate.device_id == device_id,
        DeviceCertificate.revoked_at.is_(None),
    ]
    if except_key is not None:
        which.append(DeviceCertificate.key != except_key)
    serials = session.scalars(select(DeviceCertificate.serial).where(*which)).all()
    session.execute(update(DeviceCertificate).where(*which).values(revoked_at=now))
    return len(serials)


def revoked_serials(session: Session, now: float) -> Sequence[str]:
    """Of certificates that would be valid otherwise: what a revocation list must name."""
    query = select(DeviceCertificate.serial).where(
        DeviceCertificate.revoked_at.is_not(None), DeviceCertificate.ends > now
    )
    return session.scalars(query.order_by(DeviceCertificate.serial)).all()
