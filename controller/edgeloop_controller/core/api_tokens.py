"""API tokens: their form, what is kept of one, how long it lasts (ADR 0030).

Invariants: only a token's digest is kept; a token that has ended or was revoked is nobody's.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgeloop_controller.core.access import Caller, Role
from edgeloop_controller.errors import RefusedInputError

PREFIX: Final = "edgeloop_"
SECRET_BYTES: Final = 32
LIFE_S: Final = 90 * 86400.0
LIFE_S_MAX: Final = 3660 * 86400.0
NAME_MAX_CHARS: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class TokenFacts:
    """What is kept of a token; times in seconds since 1970."""

    name: str
    roles: frozenset[Role]
    ends_at: float | None
    revoked_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.ends_at is None or now < self.ends_at)

    @property
    def caller(self) -> Caller:
        return Caller(self.name, self.roles)


def digest_of(token: str) -> str:
    """SHA-256: a secret of 256 random bits cannot be guessed, however quick the hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_name(name: str) -> str:
    """Raises RefusedInputError."""
    if _NAME.fullmatch(name) is None:
        raise RefusedInputError(
            f"{name!r} cannot be a token's name",
            hint=f"1 to {NAME_MAX_CHARS} letters, digits and _ . - , a letter or digit first: "
            "the person or the program that will use it",
        )
    return name


def check_roles(roles: Iterable[str]) -> frozenset[Role]:
    """Raises RefusedInputError."""
    known = ", ".join(Role)
    found = set()
    for role in roles:
        if role not in frozenset(Role):
            raise RefusedInputError(f"no role {role!r}", hint=f"there are: {known}")
        found.add(Role(role))
    if not found:
        raise RefusedInputError("a token needs a role", hint=f"there are: {known}")
    return frozenset(found)


def ends_at(now: float, life_s: float | None) -> float | None:
    """None: it does not end. Raises RefusedInputError."""
    if life_s is None:
        return None
    if not 0 < life_s <= LIFE_S_MAX:
        raise RefusedInputError(
            f"a token cannot last {life_s:g} s",
            hint=f"up to {LIFE_S_MAX / 86400:.0f} days, or one that does not end (`never`)",
        )
    return now + life_s
