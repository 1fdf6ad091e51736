"""How the webhooks stand. They are configured in controller.toml, not here."""

from typing import Literal

from fastapi import APIRouter

from edgeloop.documents.base import Items
from edgeloop.documents.webhooks import WebhookDocument
from edgeloop_controller.api.context import Context
from edgeloop_controller.services.webhooks import WebhookStatus

router = APIRouter(tags=["webhooks"])


@router.get("/webhooks")
def list_webhooks(services: Context) -> Items[WebhookDocument]:
    """By name; those that are not configured any more, too: they go on from where they were."""
    return Items(items=[_document(status) for status in services.webhooks.status()])


def _document(status: WebhookStatus) -> WebhookDocument:
    cursor = status.cursor
    return WebhookDocument(
        name=status.name,
        receiver=status.receiver,
        kinds=list(status.kinds),
        state=_state(status),
        behind=status.behind,
        through=cursor.through,
        attempts=cursor.attempts,
        failing_since=cursor.failing_since,
        error=cursor.error,
        delivered=cursor.delivered,
        delivered_at=cursor.delivered_at,
        given_up=cursor.given_up,
    )


def _state(
    status: WebhookStatus,
) -> Literal["up_to_date", "delivering", "retrying", "not_configured"]:
    if not status.receiver:
        return "not_configured"
    if not status.behind:
        return "up_to_date"
    return "retrying" if status.cursor.attempts else "delivering"
