"""The document of webhooks."""

from typing import Literal

from pydantic import Field

from edgeloop.documents.base import Document


class WebhookDocument(Document):
    name: str
    receiver: str = Field(description="scheme and host: the rest of a URL is often a secret")
    kinds: list[str]
    state: Literal["up_to_date", "delivering", "retrying", "not_configured"]
    behind: int = Field(description="events to be delivered still, counted to 1000")
    through: int = Field(description="the last event that is settled")
    attempts: int = Field(description="failed ones at the event that is next")
    failing_since: float | None
    error: str = Field(description="of the last attempt; empty: it succeeded")
    delivered: int
    delivered_at: float | None
    given_up: int = Field(description="events that were never delivered")
