"""Liveness and versions."""

from importlib.metadata import version

from fastapi import APIRouter

from edgeloop_controller.api import documents
from edgeloop_controller.api.context import Context
from edgeloop_controller.store import devices
from edgeloop_protocol.messages import WIRE_VERSION

router = APIRouter(tags=["health"])


@router.get("/health")
def health(services: Context) -> documents.Health:
    """200 while HTTP and the database work; `degraded` while the broker is away."""
    with services.database.reading() as session:
        total, online = devices.count(session)
    broker = services.config.broker
    connected = services.listener.is_connected
    return documents.Health(
        status="ok" if connected else "degraded",
        version=version("edgeloop-controller"),
        wire_version=WIRE_VERSION,
        now=services.clock.wall(),
        broker=documents.BrokerHealth(
            address=f"{broker.host}:{broker.port}",
            embedded=broker.embedded,
            connected=connected,
            reason=services.listener.reason,
        ),
        ingest=_ingest(services),
        devices=documents.DeviceCount(total=total, online=online),
    )


def _ingest(services: Context) -> documents.IngestHealth:
    counters = vars(services.ingest.counters).copy()
    counters["dropped"] += services.inbox.refused
    return documents.IngestHealth(waiting=len(services.inbox), **counters)
