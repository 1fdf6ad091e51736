"""From the claims of a checked identity to a caller (ADR 0030)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeloop_controller.core.access import Caller, Role
from edgeloop_controller.errors import UnauthenticatedError

PREFIX: Final = "oidc:"
"""No API token's name has a colon, so an identity cannot pass for one."""
NAME_MAX_CHARS: Final = 120


def caller_of(
    claims: Mapping[str, Any],
    name_claim: str,
    roles_claim: str,
    roles: Mapping[str, Sequence[Role]],
) -> Caller:
    """Raises UnauthenticatedError for claims that name nobody."""
    name = _found(claims, name_claim)
    if not isinstance(name, str) or not name or len(name) > NAME_MAX_CHARS:
        raise UnauthenticatedError(
            f"the identity's claim {name_claim!r} names nobody",
            hint="set [access.oidc] name_claim to a claim that the provider puts into its tokens",
        )
    if name_claim == "email" and claims.get("email_verified") is False:
        raise UnauthenticatedError(f"the provider has not verified the address {name!a}")
    if not (name.isascii() and name.isprintable()):
        raise UnauthenticatedError(
            f"the identity's name {name!a} is not printable ASCII",
            hint="set [access.oidc] name_claim to one that is, such as `sub` or `email`",
        )
    said = _found(claims, roles_claim)
    groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    given = (role for group in groups if isinstance(group, str) for role in roles.get(group, ()))
    return Caller(PREFIX + name, frozenset(given))


def _found(claims: Mapping[str, Any], path: str) -> Any:
    """`realm_access.roles` looks into an object, unless a claim has that very name."""
    if path in claims:
        return claims[path]
    current: Any = claims
    for part in path.split("."):
        current = current.get(part) if isinstance(current, Mapping) else None
    return current
