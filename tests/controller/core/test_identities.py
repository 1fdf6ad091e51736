"""From an identity's claims to a caller."""

from typing import Any

import pytest

from edgeloop_controller.core.access import Role
from edgeloop_controller.core.identities import caller_of
from edgeloop_controller.errors import UnauthenticatedError

ROLES = {"edge-ops": (Role.OPERATOR, Role.APPROVER), "readers": (Role.VIEWER,)}


def roles(claims: dict[str, Any], claim: str = "roles") -> frozenset[Role]:
    return caller_of({"sub": "ann"} | claims, "sub", claim, ROLES).roles


def test_roles_come_from_the_table_only() -> None:
    assert roles({"roles": ["edge-ops", "admin", 3]}) == {Role.OPERATOR, Role.APPROVER}
    assert roles({"roles": "readers"}) == {Role.VIEWER}
    assert roles({"roles": {"readers": True}}) == frozenset()
    assert roles({}) == frozenset()


def test_a_claim_may_lie_inside_of_an_object() -> None:
    inside = {"realm_access": {"roles": ["readers"]}}
    assert roles(inside, "realm_access.roles") == {Role.VIEWER}
    assert roles({"https://x.org/roles": ["readers"]}, "https://x.org/roles") == {Role.VIEWER}
    assert roles({"realm_access": "readers"}, "realm_access.roles") == frozenset()


def test_its_name_is_never_a_tokens() -> None:
    assert caller_of({"sub": "ann"}, "sub", "roles", ROLES).name == "oidc:ann"


@pytest.mark.parametrize(
    "claims",
    [{}, {"sub": ""}, {"sub": 7}, {"sub": "a" * 121}, {"sub": "a\nb"}, {"sub": "änn"}],
)
def test_claims_that_name_nobody(claims: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError):
        caller_of(claims, "sub", "roles", ROLES)


def test_an_address_that_was_not_verified_names_nobody() -> None:
    with pytest.raises(UnauthenticatedError, match="not verified"):
        caller_of({"email": "a@b.c", "email_verified": False}, "email", "roles", ROLES)
