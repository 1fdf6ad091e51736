"""Enrolment: tokens, the approval queue, certificates made, renewed, revoked (ADR 0033).

Invariants: what decides is `core.enrolment`; a decision, the certificate's row and the event of it
are one transaction; a secret leaves this once, when it is made, and is in no event, log or table;
a certificate that is revoked here is refused by `standing` from that moment.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.orm import Session

from edgeloop_controller.ca.authority import Authority, Issued
from edgeloop_controller.ca.config import EnrolmentConfig
from edgeloop_controller.ca.requests import Csr, check_renewal, read_certificate, read_csr
from edgeloop_controller.core import enrolment as core
from edgeloop_controller.errors import (
    ConflictError,
    EnrolmentFullError,
    EnrolmentRefusedError,
)
from edgeloop_controller.store import devices, events, identities
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.identity_tables import (
    DeviceCertificate,
    DeviceIdentity,
    EnrolmentRequest,
    EnrolmentToken,
)
from edgeloop_controller.store.tables import Device
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.topics import check_device_id

TOKEN_PREFIX: Final = "edgeloop-enrol-"  # noqa: S105 - so that scanners for secrets know one
TOKEN_BYTES: Final = 32
STANDINGS_KEPT_MAX: Final = 100_000

OpenAuthority = Callable[[], Authority]


@dataclass(frozen=True)
class MadeToken:
    row: EnrolmentToken
    secret: str = field(repr=False)


class Enrolment:
    def __init__(
        self,
        database: Database,
        open_authority: OpenAuthority,
        config: EnrolmentConfig,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed`: who may connect to the broker is different now; must return at once."""
        self._database = database
        self.open_authority = open_authority
        self._config = config
        self._clock = clock
        self._changed = changed
        self._standing: dict[str, str] = {}
        self._standing_lock = threading.Lock()

    # ---- tokens -------------------------------------------------------------------------------

    def make_token(
        self, device_id: str | None, labels: Mapping[str, str], lifetime_s: float
    ) -> MadeToken:
        """Raises ConflictError when too many wait to be used."""
        if device_id is not None:
            check_device_id(device_id)
        now = self._clock.wall()
        secret = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        with self._database.writing() as session:
            if identities.tokens_open(session, now) >= core.TOKENS_OPEN_MAX:
                raise ConflictError(
                    f"{core.TOKENS_OPEN_MAX} tokens wait to be used already",
                    hint="let them expire, or take some back: `edgeloop device tokens`",
                )
            row = EnrolmentToken(
                digest=_digest(secret),
                made_at=now,
                expires_at=now + lifetime_s,
                device_id=device_id,
                labels=dict(labels),
            )
            session.add(row)
            session.flush()
            events.add(session, now, "enrolment.token_made", device_id or "", {"token": row.id})
        return MadeToken(row, secret)

    def take_token_back(self, token_id: int) -> None:
        """It cannot be used from now on. Raises NotFoundError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.require_token(session, token_id)
            row.expires_at = min(row.expires_at, now)
            events.add(session, now, "enrolment.token_taken_back", "", {"token": token_id})

    # ---- what devices ask -----------------------------------------------------------------------

    def enrol(self, csr_pem: str, token: str | None, address: str) -> Issued | None:
        """None: it waits for a person. Raises EnrolmentRefusedError, EnrolmentFullError,
        ConflictError, RefusedInputError."""
        csr = _checked(csr_pem)
        now = self._clock.wall()
        with self._database.writing() as session:
            if token is not None:
                return self._by_token(session, csr, token, now)
            return self._by_asking(session, csr, address, now)

    def renew(self, csr_pem: str, certificate_pem: str, signature: bytes) -> Issued:
        """As `enrol`."""
        csr = _checked(csr_pem)
        shown = read_certificate(certificate_pem)
        check_renewal(csr, shown, signature)
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.certificate(session, shown.serial)
            identity = identities.identity(session, csr.device_id)
            decision = core.by_renewal(
                _shown(row, csr.device_id),
                identities.known(identity),
                core.Asked(csr.device_id, csr.fingerprint),
                identity is not None and identity.key_is_to_change,
                self._config.renew_after_expiry_s,
                now,
            )
            _unless_refused(decision)
            assert row is not None
            if row.key != csr.fingerprint:
                events.add(session, now, "device.key_changed", csr.device_id)
            else:
                self._supersede(session, row, now)
            return self._issue(session, csr, {}, now, renewal=True)

    def confirm(self, certificate_pem: str, signature: bytes, csr_pem: str) -> None:
        """The device uses this certificate's key: those of its other keys are over. What it signs
        is a CSR by the same key. Raises as `renew`."""
        csr = _checked(csr_pem)
        shown = read_certificate(certificate_pem)
        check_renewal(csr, shown, signature)
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.certificate(session, shown.serial)
            if row is None or row.revoked_at is not None or row.key != csr.fingerprint:
                raise EnrolmentRefusedError("the certificate is unknown, or revoked")
            if row.key != identities.require_identity(session, row.device_id).key:
                raise EnrolmentRefusedError("the device has a newer key than this certificate's")
            self._supersede(session, row, now)

    # ---- what people decide ---------------------------------------------------------------------

    def decide(self, request_id: int, approved: bool, labels: Mapping[str, str]) -> None:
        """Raises NotFoundError, ConflictError when it is decided already."""
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.require_request(session, request_id)
            if row.state != "pending":
                raise ConflictError(f"enrolment {request_id} is {row.state} already")
            row.state = "approved" if approved else "rejected"
            row.decided_at, row.labels = now, dict(labels)
            events.add(session, now, f"enrolment.{row.state}", row.device_id, {"key": row.key})

    def revoke(self, device_id: str, reason: str) -> None:
        """Raises NotFoundError. Once more changes nothing."""
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.require_identity(session, device_id)
            if row.revoked_at is None:
                row.revoked_at, row.revoked_because, row.cut_off_due = now, reason, True
                identities.revoke_certificates(session, device_id, now)
                events.add(session, now, "device.revoked", device_id, {"reason": reason})
        self._forget_standings()
        self._changed()

    def rotate(self, device_id: str) -> None:
        """Its next renewal must bring a new key. Raises NotFoundError, ConflictError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            row = identities.require_identity(session, device_id)
            if row.revoked_at is not None:
                raise ConflictError(
                    f"device {device_id} is revoked",
                    hint=f"`edgeloop device enroll --device {device_id}` lets it in again",
                )
            row.key_is_to_change = True
            events.add(session, now, "device.key_change_asked", device_id)

    # ---- who stands behind a certificate --------------------------------------------------------

    def standing(self, serial: str) -> str | None:
        """The device id, of a certificate that is in the books and not revoked; what TLS verifies
        (who signed it, until when) is not looked at again."""
        with self._standing_lock:
            found = self._standing.get(serial)
            books = self._standing
        if found is not None:
            return found
        with self._database.reading() as session:
            row = identities.certificate(session, serial)
        if row is None or row.revoked_at is not None:
            return None
        if len(books) < STANDINGS_KEPT_MAX:
            books[serial] = row.device_id  # of the books as they were before it was looked up
        return row.device_id

    def standing_seen(self, serial: str) -> str | None:
        """As `standing`, if it was looked up since anybody was revoked; never waits."""
        return self._standing.get(serial)

    def _forget_standings(self) -> None:
        with self._standing_lock:
            self._standing = {}

    # ---- within a transaction -------------------------------------------------------------------

    def _by_token(self, session: Session, csr: Csr, token: str, now: float) -> Issued:
        row = identities.token_of(session, _digest(token))
        known = identities.known(identities.identity(session, csr.device_id))
        facts = None
        if row is not None:
            facts = core.Token(row.expires_at, row.device_id, row.labels, row.spent_on_key)
        decision = core.by_token(facts, core.Asked(csr.device_id, csr.fingerprint), known, now)
        issue = _unless_refused(decision)
        assert row is not None
        if row.spent_at is None:
            row.spent_at, row.spent_by, row.spent_on_key = now, csr.device_id, csr.fingerprint
        return self._issue(session, csr, issue.labels, now)

    def _by_asking(self, session: Session, csr: Csr, address: str, now: float) -> Issued | None:
        identities.forget_pending(session, now - core.PENDING_KEPT_S)
        row = identities.request_of(session, csr.device_id, csr.fingerprint)
        queue = core.Queue(
            self._config.approval_queue,
            row.state if row is not None else None,  # type: ignore[arg-type]  # as it was written
            identities.pending(session),
            identities.pending(session, address),
        )
        known = identities.known(identities.identity(session, csr.device_id))
        decision = core.by_asking(core.Asked(csr.device_id, csr.fingerprint), known, queue)
        if isinstance(decision, core.Pend):
            if row is None:
                session.add(_queued(csr, address, now))
                detail = {"key": csr.fingerprint, "address": address}
                events.add(session, now, "enrolment.asked", csr.device_id, detail)
            else:
                row.asked_at = now
            return None
        _unless_refused(decision)
        assert row is not None
        return self._issue(session, csr, row.labels, now)

    def _issue(
        self,
        session: Session,
        csr: Csr,
        labels: Mapping[str, str],
        now: float,
        renewal: bool = False,
    ) -> Issued:
        authority = self.open_authority()
        begins, ends = core.lifetime(now, self._config.certificate_lifetime_s, authority.ends)
        issued = authority.issue_client(csr.device_id, csr.key, begins, ends)
        session.add(
            DeviceCertificate(
                serial=issued.serial,
                device_id=csr.device_id,
                key=issued.key,
                begins=issued.begins,
                ends=issued.ends,
            )
        )
        row = identities.identity(session, csr.device_id)
        if row is None:
            row = DeviceIdentity(device_id=csr.device_id, labels={}, cut_off_due=False)
            session.add(row)
        elif not renewal and row.key != issued.key:
            # An operator's token put this key in the place of another one, which is over.
            identities.revoke_certificates(session, csr.device_id, now, except_key=issued.key)
            row.cut_off_due = True
            self._forget_standings()
        row.key, row.key_is_to_change = issued.key, False
        if not renewal:
            row.enrolled_at, row.revoked_at, row.revoked_because = now, None, ""
            row.labels = dict(labels)
            _label(session, csr.device_id, labels)
            detail = {"serial": issued.serial, "labels": dict(labels)}
            events.add(session, now, "device.enrolled", csr.device_id, detail)
        self._changed()
        return issued

    def _supersede(self, session: Session, row: DeviceCertificate, now: float) -> None:
        if identities.revoke_certificates(session, row.device_id, now, except_key=row.key):
            identity = identities.require_identity(session, row.device_id)
            identity.cut_off_due = True  # whoever is connected by an older key
            self._forget_standings()
            self._changed()


def _label(session: Session, device_id: str, labels: Mapping[str, str]) -> None:
    device = session.get(Device, device_id)
    if device is not None and labels:
        device.labels = {**device.labels, **labels}
        device.change = devices.next_change(session)


def _queued(csr: Csr, address: str, now: float) -> EnrolmentRequest:
    return EnrolmentRequest(
        device_id=csr.device_id,
        key=csr.fingerprint,
        address=address,
        first_asked_at=now,
        asked_at=now,
        state="pending",
        labels={},
    )


def _checked(csr_pem: str) -> Csr:
    csr = read_csr(csr_pem)
    check_device_id(csr.device_id)
    return csr


def _shown(row: DeviceCertificate | None, device_id: str) -> core.Shown | None:
    if row is None or row.device_id != device_id:
        return None
    return core.Shown(row.key, row.begins, row.ends, row.revoked_at is not None)


def _unless_refused(decision: core.Decision) -> core.Issue:
    if isinstance(decision, core.Refuse):
        if decision.kind == "taken":
            raise ConflictError(decision.why, hint=decision.mend)
        if decision.kind == "full":
            raise EnrolmentFullError(decision.why, hint=decision.mend)
        raise EnrolmentRefusedError(decision.why, hint=decision.mend)
    assert isinstance(decision, core.Issue)
    return decision


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
