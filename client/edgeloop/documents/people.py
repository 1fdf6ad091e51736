"""Documents of API tokens, and of who asks."""

from typing import Literal

from pydantic import Field

from edgeloop.documents.base import Document

RoleName = Literal["viewer", "operator", "publisher", "approver", "admin"]


class TokenRequest(Document):
    name: str = Field(max_length=64, description="the person or the program that will use it")
    roles: list[RoleName] = Field(min_length=1, max_length=5)
    life_s: float | None = Field(
        default=90 * 86400.0, gt=0, description="seconds until it ends; null: it does not end"
    )


class TokenDocument(Document):
    name: str
    roles: list[RoleName]
    created_at: float
    created_by: str
    ends_at: float | None = Field(description="null: it does not end")
    revoked_at: float | None
    state: Literal["valid", "ended", "revoked"]


class TokenMade(Document):
    token: TokenDocument
    secret: str = Field(description="what is sent as `Authorization: Bearer`; it is shown once")


class WhoDocument(Document):
    name: str = Field(description="empty: nobody had to say")
    authenticated: bool
    roles: list[RoleName]
