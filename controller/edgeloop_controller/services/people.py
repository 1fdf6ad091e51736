"""Who asks: API tokens and an identity provider's; making and revoking tokens.

Invariants: a token that is given is checked, whether one is required or not; a secret is given out
once, by `create`, and is nowhere else.
"""

import secrets
from collections.abc import Iterable
from typing import Final, Protocol

from edgeloop_controller.core.access import ANYBODY, Caller
from edgeloop_controller.core.api_tokens import (
    PREFIX,
    SECRET_BYTES,
    TokenFacts,
    check_name,
    check_roles,
    digest_of,
    ends_at,
)
from edgeloop_controller.errors import ConflictError, NotFoundError, UnauthenticatedError
from edgeloop_controller.store import api_tokens, events
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import ApiToken
from edgeloop_protocol.clock import Clock

TOKENS_MAX: Final = 1000
BEARER_MAX_CHARS: Final = 8192
HOW: Final = (
    "send `Authorization: Bearer TOKEN`; the CLI and `Fleet` take it from EDGELOOP_TOKEN or "
    "EDGELOOP_TOKEN_FILE; `edgeloop token create` makes one"
)


class IdentityProvider(Protocol):
    def caller_of(self, token: str, now: float) -> Caller:
        """Raises UnauthenticatedError or IdentityProviderError."""
        ...


class People:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        required: bool,
        identities: IdentityProvider | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._identities = identities
        self.required: Final = required

    def who(self, authorization: str | None) -> Caller:
        """Of the header `Authorization`. Raises UnauthenticatedError or IdentityProviderError."""
        if authorization is None:
            if self.required:
                raise UnauthenticatedError("this controller asks who you are", hint=HOW)
            return ANYBODY
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > BEARER_MAX_CHARS:
            raise UnauthenticatedError("the header Authorization holds no bearer token", hint=HOW)
        now = self._clock.wall()
        if token.startswith(PREFIX):
            return self._of_token(token, now)
        if self._identities is None:
            raise UnauthenticatedError(
                f"that is no API token (they begin with {PREFIX!r}), and no identity provider is "
                "configured",
                hint=HOW,
            )
        return self._identities.caller_of(token, now)

    def _of_token(self, token: str, now: float) -> Caller:
        with self._database.reading() as session:
            facts = api_tokens.by_digest(session, digest_of(token))
        if facts is None:
            raise UnauthenticatedError("this controller knows no such token", hint=HOW)
        if not facts.is_valid(now):
            why = "is revoked" if facts.revoked_at is not None else "has ended"
            raise UnauthenticatedError(
                f"the token {facts.name!r} {why}", hint="ask an admin for a new one"
            )
        return facts.caller

    def create(
        self, name: str, roles: Iterable[str], life_s: float | None, by: str
    ) -> tuple[ApiToken, str]:
        """The token's row and its secret. Raises RefusedInputError or ConflictError."""
        now = self._clock.wall()
        facts = TokenFacts(check_name(name), check_roles(roles), ends_at(now, life_s))
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        with self._database.writing() as session:
            if api_tokens.valid_named(session, name, now) is not None:
                raise ConflictError(
                    f"there is a valid token {name!r}",
                    hint=f"revoke it (`edgeloop token revoke {name}`), or choose another name",
                )
            if api_tokens.count(session) >= TOKENS_MAX:
                raise ConflictError(
                    f"the controller keeps {TOKENS_MAX} tokens at most, revoked ones included",
                    hint="use an identity provider for people ([access.oidc])",
                )
            row = api_tokens.add(session, facts, digest_of(secret), by, now)
            data = {"roles": sorted(facts.roles), "ends_at": facts.ends_at}
            events.add(session, now, "token.created", name, data)
        return row, secret

    def revoke(self, name: str) -> None:
        """Raises NotFoundError."""
        now = self._clock.wall()
        with self._database.writing() as session:
            if not api_tokens.revoke(session, name, now):
                raise NotFoundError(
                    f"no token {name!r} that is not revoked", hint="see `edgeloop token list`"
                )
            events.add(session, now, "token.revoked", name, {})

    def every(self) -> list[ApiToken]:
        with self._database.reading() as session:
            return list(api_tokens.every(session))

    def has_token(self) -> bool:
        with self._database.reading() as session:
            return api_tokens.any_valid(session, self._clock.wall())
