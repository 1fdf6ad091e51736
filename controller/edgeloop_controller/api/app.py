"""The HTTP application: routes under /v1, errors in one shape, OpenAPI at /openapi.json."""

from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI

from edgeloop_controller.api import errors
from edgeloop_controller.api.context import Services
from edgeloop_controller.api.routes import (
    artifacts,
    devices,
    drift,
    events,
    health,
    models,
    retraining,
    rollouts,
    samples,
)
from edgeloop_controller.api.upload_limit import UploadLimit

ROUTES: Final = (
    health,
    models,
    artifacts,
    devices,
    rollouts,
    drift,
    samples,
    retraining,
    events,
)


def create_app(services: Services) -> FastAPI:
    app = FastAPI(title="Edgeloop controller", version=version("edgeloop-controller"))
    app.state.services = services
    v1 = APIRouter(prefix="/v1")
    for module in ROUTES:
        v1.include_router(module.router)
    app.include_router(v1)
    app.add_middleware(UploadLimit, upload_max_bytes=_body_limit(services))
    errors.install(app)
    return app


def _body_limit(services: Services) -> int:
    """A publish request carries the model, the baseline and the manifest."""
    limits = services.config.limits
    return limits.upload_max_bytes + limits.baseline_max_bytes + 2 * 1024 * 1024
