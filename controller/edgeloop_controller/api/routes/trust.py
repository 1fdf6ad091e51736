"""Signed metadata: served to devices as TUF's files, taken from people as proposals."""

import json
from typing import Any

from fastapi import APIRouter, Response

from edgeloop.documents import trust as documents
from edgeloop.documents.base import Items
from edgeloop_controller.api.context import Context, Services
from edgeloop_controller.services.trust import Waiting
from edgeloop_controller.services.trust_files import InForce
from edgeloop_controller.store import versions
from edgeloop_controller.trust.acceptance import Count
from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import ROOT, Document, releases_of

router = APIRouter(prefix="/trust", tags=["trust"])

IMMUTABLE = "public, max-age=31536000, immutable"


@router.get("")
def trust(services: Context) -> documents.TrustDocument:
    """What is signed, until when, by whom, and what waits for somebody."""
    in_force = services.trust.in_force
    return documents.TrustDocument(
        initialised=in_force is not None,
        roles=_roles(services, in_force) if in_force is not None else [],
        waiting=len(services.trust.waiting()),
        unsigned=_unsigned(services) if in_force is not None else [],
    )


@router.get(
    "/metadata/{name}",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}},
)
def metadata(name: str, services: Context) -> Response:
    """`timestamp.json`, `N.root.json`, `N.snapshot.json`, `N.targets.json`, `N.MODEL.json`."""
    content = services.trust.metadata(name)
    caching = "no-cache" if name == "timestamp.json" else IMMUTABLE
    headers = {"cache-control": caching}
    return Response(content, media_type="application/json", headers=headers)


@router.post("/metadata")
def propose(
    body: documents.ProposalDocument, services: Context
) -> documents.ProposalOutcomeDocument:
    """Accepted if enough keys signed it, else it waits for the others; all of it or nothing."""
    outcome = services.trust.propose(body.documents)
    return documents.ProposalOutcomeDocument(
        accepted=outcome.accepted, signatures=[_count(count) for count in outcome.counts]
    )


@router.get("/waiting")
def waiting(services: Context) -> Items[documents.WaitingDocument]:
    """Proposals that lack signatures, for who is to add one."""
    return Items(items=[_waiting(one) for one in services.trust.waiting()])


@router.delete("/waiting/{role}")
def discard(role: str, services: Context) -> documents.DiscardedDocument:
    """Take the proposal away that changes this role."""
    services.trust.discard(role)
    return documents.DiscardedDocument(role=role)


@router.post("/keys", status_code=201)
def make_keys(services: Context) -> documents.OnlineKeysDocument:
    """New online keys; they count once a root names them, and those of no root are removed."""
    made = {
        role: documents.OnlineKeyDocument(keyid=key.keyid, key=key.to_dict())
        for role, key in services.trust.make_keys().items()
    }
    return documents.OnlineKeysDocument(**made)


def _roles(services: Services, in_force: InForce) -> list[documents.TrustRoleDocument]:
    standing, online = in_force.standing, in_force.online
    signed: list[Document[Any]] = [standing.root, *standing.roles.values()]
    return [
        *(_role(services, in_force, document, is_online=False) for document in signed),
        *(
            _role(services, in_force, document, is_online=True)
            for document in (online.snapshot, online.timestamp)
        ),
    ]


def _role(
    services: Services, in_force: InForce, document: Document[Any], is_online: bool
) -> documents.TrustRoleDocument:
    standing = in_force.standing
    role = standing.root.signed.roles.get(document.role)
    if role is None:
        role = delegated_roles(standing.targets.signed)[document.role]
    is_targets = document.role != ROOT and not is_online
    return documents.TrustRoleDocument(
        role=document.role,
        version=document.version,
        expires=document.expires.timestamp(),
        state=_state(services, document, is_online),
        online=is_online,
        threshold=role.threshold,
        keys=list(role.keyids),
        signed_by=list(document.metadata.signatures),
        releases=len(releases_of(document)) if is_targets else 0,
    )


def _state(services: Services, document: Document[Any], is_online: bool) -> Any:
    left_s = (document.expires - services.trust.now()).total_seconds()
    if left_s <= 0:
        return "expired"
    soon = not is_online and left_s <= services.trust.config.warn_s
    return "expires_soon" if soon else "valid"


def _unsigned(services: Services) -> list[str]:
    with services.database.reading() as session:
        rows = sorted(versions.every(session), key=lambda row: -row.published_at)
    names = (f"{r.name}@{r.version}" for r in rows if services.signing_gate.unsigned(r))
    return [name for name, _ in zip(names, range(documents.UNSIGNED_SHOWN_MAX), strict=False)]


def _waiting(waits: Waiting) -> documents.WaitingDocument:
    proposal = waits.proposal
    return documents.WaitingDocument(
        at=proposal.at,
        documents={r: json.loads(one.content) for r, one in proposal.documents.items()},
        signatures=[_count(count) for count in waits.counts],
        problem=waits.problem,
    )


def _count(count: Count) -> documents.SignatureCountDocument:
    return documents.SignatureCountDocument(
        role=count.role,
        by=count.by,
        signed_by=list(count.signed),
        threshold=count.threshold,
    )
