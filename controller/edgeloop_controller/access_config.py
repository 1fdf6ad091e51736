"""`[access]` of the controller's configuration: who is asked to say who they are (ADR 0030).

Invariants: no secret stands in it.
"""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edgeloop_controller.core.access import Role
from edgeloop_protocol.config import Config
from edgeloop_protocol.loopback import is_loopback


class OidcConfig(Config):
    """An OpenID Connect provider whose tokens are taken."""

    issuer: str = Field(
        max_length=2048, pattern=r"^https?://[^\s?#@]+$", description="as in its tokens"
    )
    audience: str = Field(min_length=1, max_length=256, description="who its tokens are meant for")
    name_claim: str = Field(
        default="sub", max_length=64, description="names the person: unique, and never reused"
    )
    roles_claim: str = Field(
        default="roles", max_length=64, description="a text or a list; `a.b` looks into an object"
    )
    roles: dict[str, tuple[Role, ...]] = Field(
        max_length=256, description="what stands in roles_claim → roles here; all else is nothing"
    )
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _asked_over_tls(self) -> Self:
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                f"the issuer {self.issuer} is asked without TLS: give its https address"
            )
        return self


class AccessConfig(Config):
    require: bool | None = Field(
        default=None,
        description="a token for every request; None: unless [http] host is loopback",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="names under which it is reached, beside loopback's, where none is required",
    )
    two_person_rollouts: bool = Field(
        default=False, description="wave 1 waits for a person who did not start the rollout"
    )
    oidc: OidcConfig | None = Field(default=None, description="None: API tokens only")
