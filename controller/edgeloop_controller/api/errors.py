"""Errors to HTTP: one table, one body: `{"error": {"code", "message", "hint"}}`."""

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from edgeloop_controller.errors import (
    ArtifactError,
    ConflictError,
    ControllerError,
    EnrolmentFullError,
    EnrolmentRefusedError,
    ForbiddenError,
    IdentityProviderError,
    MlflowError,
    NoAnswerError,
    NotFoundError,
    RefusedInputError,
    SignatureError,
    TooLargeError,
    TrainingError,
    UnauthenticatedError,
)
from edgeloop_protocol.errors import ProtocolError

logger = logging.getLogger(__name__)

# The first row that the error is an instance of counts.
STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (SignatureError, 401),
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (EnrolmentRefusedError, 403),
    (EnrolmentFullError, 429),
    (TooLargeError, 413),
    (RefusedInputError, 422),
    (ProtocolError, 422),
    (MlflowError, 502),
    (IdentityProviderError, 503),
    (ArtifactError, 503),
    (NoAnswerError, 504),
    (TrainingError, 500),
    (ControllerError, 500),
)
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def error_response(
    status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    body = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ControllerError, _of_domain)
    app.add_exception_handler(ProtocolError, _of_domain)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(OperationalError, _of_database)
    app.add_exception_handler(Exception, _of_surprise)


def status_of(error: Exception) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def domain_response(error: Exception) -> JSONResponse:
    code = getattr(error, "code", "refused_input")
    return error_response(status_of(error), code, str(error), getattr(error, "hint", ""))


async def _of_domain(_request: Request, error: Exception) -> JSONResponse:
    return domain_response(error)


async def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    problems: Any = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{_where(problem['loc'])}: {problem['msg']}" for problem in problems[:5]]
    return error_response(422, "refused_input", "; ".join(lines), "see /docs for what is expected")


def _where(location: tuple[Any, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path")]
    return ".".join(parts) or "request"


async def _of_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused_input")
    headers = dict(error.headers) if error.headers else None
    return error_response(error.status_code, code, str(error.detail), headers=headers)


async def _of_database(_request: Request, error: Exception) -> JSONResponse:
    logger.error("the database failed a request: %s", error)
    return error_response(
        503, "database_unavailable", "the database cannot be used now", "try again; see the log"
    )


async def _of_surprise(request: Request, error: Exception) -> JSONResponse:
    logger.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(500, "failed", "the controller failed", "its log says where")
