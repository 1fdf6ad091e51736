"""Liveness and versions."""

from importlib.metadata import version

from fastapi import APIRouter

from edgeloop.documents import fleet as documents
from edgeloop_controller.api.context import Context
from edgeloop_controller.store import devices
from edgeloop_protocol.messages import WIRE_VERSION

router = APIRouter(tags=["health"])


@router.get("/health")
def health(services: Context) -> documents.Health:
    """200 while HTTP and the database work; `degraded` while the broker is away."""
    with services.database.reading() as session:
        total, online = devices.count(session)
    connected = services.listener.is_connected
    return documents.Health(
        status="ok" if connected else "degraded",
        version=version("edgeloop-controller"),
        wire_version=WIRE_VERSION,
        now=services.clock.wall(),
        broker=_broker(services),
        ingest=_ingest(services),
        devices=documents.DeviceCount(total=total, online=online),
    )


def _broker(services: Context) -> documents.BrokerHealth:
    config, embedded = services.config.broker, services.embedded_broker
    reason = services.listener.reason
    if embedded is not None and not embedded.is_running():
        reason = "the embedded broker ended; it is being started again"
    return documents.BrokerHealth(
        address=f"{config.host}:{config.port}",
        embedded=config.embedded,
        connected=services.listener.is_connected,
        reason=reason,
        restarts=embedded.restarts if embedded is not None else 0,
    )


def _ingest(services: Context) -> documents.IngestHealth:
    counters = vars(services.ingest.counters).copy()
    counters["dropped"] += services.inbox.refused
    return documents.IngestHealth(waiting=len(services.inbox), **counters)
