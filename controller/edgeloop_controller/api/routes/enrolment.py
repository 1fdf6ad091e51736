"""Known devices: what they ask for themselves (POST /enrolments…), and what people decide.

Invariants: whatever a device may ask without a person's token is a POST below /enrolments, or the
GET of the authority; nothing that people decide is.
"""

import binascii
from base64 import b64decode
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from edgeloop.documents import enrolment as documents
from edgeloop.documents.base import Items
from edgeloop_controller.api.context import Context
from edgeloop_controller.api.row_ids import RowId
from edgeloop_controller.ca.authority import Issued
from edgeloop_controller.core.enrolment import ASK_AGAIN_S
from edgeloop_controller.errors import RefusedInputError
from edgeloop_controller.store import identities
from edgeloop_controller.store.identity_tables import (
    DeviceIdentity,
    EnrolmentRequest,
    EnrolmentToken,
)

router = APIRouter(tags=["enrolment"])


@router.post(
    "/enrolments",
    status_code=201,
    responses={202: {"model": documents.EnrolmentAnswer}},
)
def enrol(
    asked: documents.EnrolmentAsked, request: Request, response: Response, services: Context
) -> documents.EnrolmentAnswer:
    """A device asks for its certificate; 202: it waits for a person, and asks again."""
    address = request.client.host if request.client is not None else ""
    issued = services.enrolment.enrol(asked.csr, asked.token, address)
    if issued is None:
        response.status_code = 202
    return _answer(issued, services.enrolment.open_authority().trusted_pem)


@router.post("/enrolments/renewals", status_code=201)
def renew(asked: documents.RenewalAsked, services: Context) -> documents.EnrolmentAnswer:
    """409: come again with a new key."""
    issued = services.enrolment.renew(asked.csr, asked.certificate, _signature(asked.signature))
    return _answer(issued, services.enrolment.open_authority().trusted_pem)


@router.post("/enrolments/confirmations")
def confirm(asked: documents.RenewalAsked, services: Context) -> documents.KeyConfirmed:
    """The device uses the key of `certificate`: its other keys are over."""
    services.enrolment.confirm(asked.certificate, _signature(asked.signature), asked.csr)
    return documents.KeyConfirmed()


@router.get("/enrolments/authority")
def show_authority(services: Context) -> documents.AuthorityDocument:
    """Public: a device compares it with a fingerprint that it has from elsewhere."""
    authority = services.enrolment.open_authority()
    return documents.AuthorityDocument(
        authority=authority.trusted_pem, fingerprint=authority.fingerprint
    )


@router.get("/enrolments")
def list_enrolments(
    services: Context,
    state: Annotated[Literal["pending", "approved", "rejected"] | None, Query()] = None,
) -> Items[documents.EnrolmentDocument]:
    """The newest thousand of devices that asked without a token."""
    with services.database.reading() as session:
        return Items(items=[_enrolment(row) for row in identities.requests(session, state)])


@router.put("/enrolments/{enrolment_id}/decision")
def decide(
    enrolment_id: RowId, decision: documents.EnrolmentDecision, services: Context
) -> documents.EnrolmentDocument:
    services.enrolment.decide(enrolment_id, decision.approved, decision.labels)
    with services.database.reading() as session:
        return _enrolment(identities.require_request(session, enrolment_id))


@router.post("/enrolment-tokens", status_code=201)
def make_token(asked: documents.TokenAsked, services: Context) -> documents.EnrolmentTokenMade:
    """For one device, once."""
    made = services.enrolment.make_token(asked.device_id, asked.labels, asked.lifetime_s)
    return documents.EnrolmentTokenMade(**_token(made.row).model_dump(), token=made.secret)


@router.get("/enrolment-tokens")
def list_tokens(services: Context) -> Items[documents.EnrolmentTokenDocument]:
    with services.database.reading() as session:
        return Items(items=[_token(row) for row in identities.tokens(session)])


@router.delete("/enrolment-tokens/{token_id}")
def take_token_back(token_id: RowId, services: Context) -> documents.EnrolmentTokenDocument:
    """It cannot be used from now on."""
    services.enrolment.take_token_back(token_id)
    with services.database.reading() as session:
        return _token(identities.require_token(session, token_id))


@router.get("/devices/{device_id}/identity")
def show_identity(device_id: str, services: Context) -> documents.IdentityDocument:
    with services.database.reading() as session:
        return _identity(session, device_id)


@router.post("/devices/{device_id}/revocation")
def revoke(
    device_id: str, asked: documents.RevocationRequest, services: Context
) -> documents.IdentityDocument:
    """HTTP refuses it from now on, and the broker within seconds: `cut_off_due` until then."""
    services.enrolment.revoke(device_id, asked.reason)
    with services.database.reading() as session:
        return _identity(session, device_id)


@router.post("/devices/{device_id}/rotation")
def rotate(device_id: str, services: Context) -> documents.IdentityDocument:
    """The device's next renewal must bring a new key."""
    services.enrolment.rotate(device_id)
    with services.database.reading() as session:
        return _identity(session, device_id)


def _answer(issued: Issued | None, authority_pem: str) -> documents.EnrolmentAnswer:
    return documents.EnrolmentAnswer(
        state="issued" if issued is not None else "pending",
        certificate=issued.chain_pem if issued is not None else None,
        authority=authority_pem,
        ask_again_s=None if issued is not None else ASK_AGAIN_S,
    )


def _signature(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedInputError("signature is no base64") from error


def _enrolment(row: EnrolmentRequest) -> documents.EnrolmentDocument:
    return documents.EnrolmentDocument(
        id=row.id,
        device_id=row.device_id,
        key=row.key,
        address=row.address,
        first_asked_at=row.first_asked_at,
        asked_at=row.asked_at,
        state=row.state,
        decided_at=row.decided_at,
    )


def _token(row: EnrolmentToken) -> documents.EnrolmentTokenDocument:
    return documents.EnrolmentTokenDocument(
        id=row.id,
        device_id=row.device_id,
        labels=row.labels,
        made_at=row.made_at,
        expires_at=row.expires_at,
        spent_at=row.spent_at,
        spent_by=row.spent_by,
    )


def _identity(session: Session, device_id: str) -> documents.IdentityDocument:
    row: DeviceIdentity = identities.require_identity(session, device_id)
    newest = identities.newest_certificate(session, device_id)
    return documents.IdentityDocument(
        device_id=row.device_id,
        key=row.key,
        enrolled_at=row.enrolled_at,
        certificate_ends=newest.ends if newest is not None else None,
        key_is_to_change=row.key_is_to_change,
        revoked_at=row.revoked_at,
        revoked_because=row.revoked_because,
        cut_off_due=row.cut_off_due,
    )
