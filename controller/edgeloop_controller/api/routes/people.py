"""API tokens, and who asks."""

from fastapi import APIRouter
from pydantic import TypeAdapter

from edgeloop.documents import people as documents
from edgeloop.documents.base import Items
from edgeloop_controller.api.caller import Asking
from edgeloop_controller.api.context import Context
from edgeloop_controller.store.tables import ApiToken

router = APIRouter(tags=["people"])
_ROLES: TypeAdapter[list[documents.RoleName]] = TypeAdapter(list[documents.RoleName])


@router.get("/whoami")
def who_am_i(caller: Asking) -> documents.WhoDocument:
    """Who the controller takes the sender for, and what they may do."""
    return documents.WhoDocument(
        name=caller.name,
        authenticated=caller.authenticated,
        roles=_ROLES.validate_python(sorted(caller.roles)),
    )


@router.post("/tokens", status_code=201)
def create_token(
    body: documents.TokenRequest, services: Context, caller: Asking
) -> documents.TokenMade:
    """The secret is in this answer and nowhere else. 409: there is a valid token of that name."""
    row, secret = services.people.create(body.name, body.roles, body.life_s, caller.name)
    return documents.TokenMade(token=token_document(row, services.clock.wall()), secret=secret)


@router.get("/tokens")
def list_tokens(services: Context) -> Items[documents.TokenDocument]:
    """By name, revoked ones and those that have ended included."""
    now = services.clock.wall()
    return Items(items=[token_document(row, now) for row in services.people.every()])


@router.delete("/tokens/{name}")
def revoke_token(name: str, services: Context) -> Items[documents.TokenDocument]:
    """From now on it is nobody's; the tokens of that name."""
    services.people.revoke(name)
    now = services.clock.wall()
    return Items(
        items=[token_document(row, now) for row in services.people.every() if row.name == name]
    )


def token_document(row: ApiToken, now: float) -> documents.TokenDocument:
    """As of `now`."""
    has_ended = row.ends_at is not None and row.ends_at <= now
    return documents.TokenDocument(
        name=row.name,
        roles=_ROLES.validate_python(row.roles),
        created_at=row.created_at,
        created_by=row.created_by,
        ends_at=row.ends_at,
        revoked_at=row.revoked_at,
        state="revoked" if row.revoked_at is not None else "ended" if has_ended else "valid",
    )
