"""Publishing from MLflow's registry, its webhook, and how its aliases are followed."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from edgeloop.documents import fleet as documents
from edgeloop.documents.mlflow import (
    FollowDocument,
    MlflowDocument,
    MlflowPublishRequest,
    WebhookTaken,
)
from edgeloop_controller.api.context import Context, Services
from edgeloop_controller.api.routes.models import published_version
from edgeloop_controller.core.mlflow_versions import parse_model_uri
from edgeloop_controller.core.mlflow_webhook import BODY_MAX_BYTES
from edgeloop_controller.errors import NotFoundError, TooLargeError
from edgeloop_controller.services.mlflow import Mlflow
from edgeloop_controller.services.mlflow_following import ACTOR, FollowStatus
from edgeloop_controller.store import audit

router = APIRouter(prefix="/mlflow", tags=["mlflow"])


@router.get("")
def show(services: Context) -> MlflowDocument:
    """What is followed, what was last seen, and the last error."""
    mlflow = services.mlflow
    if mlflow is None:
        return MlflowDocument(
            configured=False, tracking_uri="", takes_webhooks=False, webhook_at=None, items=[]
        )
    config = mlflow.following.config
    return MlflowDocument(
        configured=True,
        tracking_uri=config.tracking_uri,
        takes_webhooks=config.webhook_secret_file is not None,
        webhook_at=mlflow.webhooks.last_at,
        items=[_follow(status) for status in mlflow.following.status()],
    )


@router.post("/publish", status_code=201)
def publish(
    body: MlflowPublishRequest, services: Context, response: Response
) -> documents.PublishedVersion:
    """201: published. 200: the same was published before. 409: other bytes were. 502: MLflow's
    server cannot be asked."""
    uri = parse_model_uri(body.uri)
    published = _required(services).publishing.publish(uri, body.name)
    return published_version(published, services, response)


@router.post("/webhook", status_code=202)
async def take_webhook(request: Request, services: Context) -> WebhookTaken:
    """For MLflow: create its webhook with this address and a secret of `webhook_secret_file`.
    401: it is not signed with one, or not now."""
    webhooks = _required(services).webhooks
    webhooks.require_taken()
    body = await _body(request)
    delivery = await run_in_threadpool(webhooks.verified, request.headers, body)
    audit.identify(ACTOR, {"delivery": delivery})
    address = request.client.host if request.client else ""
    taken = webhooks.take(delivery, body, address)
    return WebhookTaken(
        delivery=delivery, seen_before=taken.seen_before, follows=list(taken.follows)
    )


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > BODY_MAX_BYTES:
            raise TooLargeError(f"the webhook is above the limit of {BODY_MAX_BYTES} bytes")
    return bytes(content)


def _required(services: Services) -> Mlflow:
    if services.mlflow is None:
        raise NotFoundError(
            "this controller knows no MLflow server",
            hint="set [mlflow] tracking_uri in its configuration (docs/mlflow.md)",
        )
    return services.mlflow


def _follow(status: FollowStatus) -> FollowDocument:
    standing = status.standing
    return FollowDocument(
        name=status.name,
        uri=str(status.config.uri),
        rollout=status.config.rollout,
        slot=status.config.slot,
        selector=status.config.selector,
        version=standing.version,
        looked_at=standing.looked_at,
        next_look_at=standing.next_look_at,
        moved_at=status.handled_at,
        published=status.handled.get("published", ""),
        rollout_id=status.handled.get("rollout"),
        failures=standing.failures,
        failing_since=standing.failing_since,
        error=standing.error,
    )
