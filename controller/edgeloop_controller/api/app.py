"""The HTTP application: routes under /v1, errors in one shape, OpenAPI at /openapi.json."""

from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from edgeloop_controller.api import errors
from edgeloop_controller.api.audit import Audit
from edgeloop_controller.api.context import Services
from edgeloop_controller.api.device_guard import DeviceGuard
from edgeloop_controller.api.guard import Guard
from edgeloop_controller.api.request_limits import RequestLimits
from edgeloop_controller.api.routes import (
    artifacts,
    audit,
    challengers,
    devices,
    drift,
    enrolment,
    events,
    health,
    mlflow,
    models,
    people,
    retraining,
    rollouts,
    samples,
    telemetry,
    trust,
    webhooks,
    why,
)
from edgeloop_controller.api.small_artifacts import SmallArtifacts
from edgeloop_controller.api.upload_limit import UploadLimit
from edgeloop_controller.config import MANIFEST_TOML_MAX_BYTES, LimitsConfig

ROUTES: Final = (
    health,
    models,
    artifacts,
    devices,
    why,
    rollouts,
    challengers,
    drift,
    telemetry,
    samples,
    retraining,
    events,
    audit,
    webhooks,
    mlflow,
    people,
    trust,
    enrolment,
)


def create_app(services: Services) -> FastAPI:
    app = describe_app(services.config.limits)
    app.state.services = services
    config = services.config
    # The last one added sees a request first.
    app.add_middleware(SmallArtifacts, artifacts=services.artifacts)
    app.add_middleware(Guard, people=services.people, hosts=config.access.hosts)
    app.add_middleware(
        DeviceGuard,
        enrolment=services.enrolment,
        people=services.people,
        required=config.http.tls is not None,
    )
    app.add_middleware(Audit, database=services.database, clock=services.clock)
    app.add_middleware(RequestLimits, limits=config.limits, clock=services.clock)
    return app


def describe_app(limits: LimitsConfig) -> FastAPI:
    """All routes, serving nothing yet: what the OpenAPI description is made from."""
    # Its pages carry their scripts along: a fleet's network often has no way to a CDN.
    app = FastAPIOffline(title="Edgeloop controller", version=version("edgeloop-controller"))
    v1 = APIRouter(prefix="/v1")
    for module in ROUTES:
        v1.include_router(module.router)
    app.include_router(v1)
    app.add_middleware(UploadLimit, upload_max_bytes=_body_limit(limits))
    errors.install(app)
    return app


def _body_limit(limits: LimitsConfig) -> int:
    """A publish request carries the model, the baseline and the manifest."""
    return limits.upload_max_bytes + limits.baseline_max_bytes + 2 * MANIFEST_TOML_MAX_BYTES
