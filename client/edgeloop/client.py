"""A client of the controller's HTTP API: documents in, documents out.

Invariants: raises nothing but ApiError; imports nothing of the server.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from edgeloop.errors import ApiError

ACTOR_HEADER: Final = "x-edgeloop-actor"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 120.0  # publishing runs the model


class Client:
    """Use as a context manager. Every method returns the API's own document."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        transport: httpx.BaseTransport | None = None,
        actor: str | None = None,
    ) -> None:
        """`actor`: who asks, in ASCII; kept in the audit log, and not authenticated."""
        self._url = url.rstrip("/")
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # A controller on this machine or network is reached directly, whatever proxy is set.
        headers = {ACTOR_HEADER: actor} if actor else None
        self._http = httpx.Client(
            timeout=timeout, transport=transport, trust_env=False, headers=headers
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        given = {key: value for key, value in query.items() if value is not None}
        return self._call("GET", path, params=given).json()

    def get_text(self, path: str) -> str:
        return self._call("GET", path).text

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, json=body).json()

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, json=body).json()

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body).json()

    def publish(
        self,
        model: Path,
        name: str,
        version: str,
        manifest: Path | None = None,
        baseline: Path | None = None,
    ) -> Any:
        """Send a model file. Raises ApiError, and OSError for a file that cannot be read."""
        files = {"model": (model.name, model.read_bytes())}
        if manifest is not None:
            files["manifest"] = (manifest.name, manifest.read_bytes())
        if baseline is not None:
            files["baseline"] = (baseline.name, baseline.read_bytes())
        return self._call("POST", f"/models/{name}/versions/{version}", files=files).json()

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, f"{self._url}/v1{path}", **request)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiError(
                None,
                "unreachable",
                f"no controller answers at {self._url}: {error}",
                "start one with `edgeloop serve`, or give its address with --url or EDGELOOP_URL",
            ) from error
        if response.is_success:
            return response
        raise _refusal(response)


def _refusal(response: httpx.Response) -> ApiError:
    try:
        error = response.json()["error"]
        return ApiError(response.status_code, error["code"], error["message"], error["hint"])
    except (ValueError, KeyError, TypeError):
        text = response.text[:200] or response.reason_phrase
        return ApiError(response.status_code, "failed", f"{response.status_code}: {text}", "")
