"""The documents of MLflow's registry."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents.base import Document
from edgeloop_protocol.messages import Name


class MlflowPublishRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    uri: Annotated[str, Field(max_length=600)] = Field(
        description="models:/NAME@ALIAS or models:/NAME/NUMBER"
    )
    name: Name | None = Field(default=None, description="of the model here; null: as in MLflow")


class FollowDocument(Document):
    name: str
    uri: str
    rollout: bool = Field(description="whether a rollout is started when the alias moves")
    slot: str
    selector: str
    version: str = Field(description="MLflow's number, as last seen; empty: not seen yet")
    looked_at: float | None
    next_look_at: float
    moved_at: float | None = Field(description="when a move was last acted on; null: never")
    published: str = Field(description="NAME@VERSION that came of it")
    rollout_id: int | None = Field(description="that came of it")
    failures: int = Field(description="looks that failed, in a row")
    failing_since: float | None
    error: str = Field(description="of the last look; empty: it succeeded")


class MlflowDocument(Document):
    configured: bool
    tracking_uri: str
    takes_webhooks: bool
    webhook_at: float | None = Field(description="when MLflow's last webhook came; null: never")
    items: list[FollowDocument]


class WebhookTaken(Document):
    delivery: str
    seen_before: bool = Field(description="the same delivery came before, and this changed nothing")
    follows: list[str] = Field(description="those that look at their alias now")
