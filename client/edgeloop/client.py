"""HTTP to the controller's API: documents in, documents out.

Invariants: raises nothing but EdgeloopError, mostly ApiError, and OSError for a file that cannot be
read; imports nothing of the server.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from edgeloop import credentials
from edgeloop.errors import AnswerError, ApiError, EdgeloopError

ACTOR_HEADER: Final = "x-edgeloop-actor"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 120.0  # publishing runs the model
TOO_MANY_REQUESTS: Final = 429
BUSY_TRIES_MAX: Final = 5
RETRY_AFTER_S: Final = 1.0
RETRY_AFTER_S_MAX: Final = 30.0

Answer = TypeVar("Answer", bound=BaseModel)


class Client:
    """Use as a context manager, or `close` it. Safe to use from several threads."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        transport: httpx.BaseTransport | None = None,
        actor: str | None = None,
        token: str | None = None,
    ) -> None:
        """`token`: proves who asks; by default that of EDGELOOP_TOKEN or EDGELOOP_TOKEN_FILE.
        `actor`: in whose name, in ASCII; kept in the audit log, and checked by nobody.

        Raises EdgeloopError for a token that cannot be read or may not be sent there.
        """
        if actor is not None and not actor.isascii():
            raise EdgeloopError(
                f"the actor {actor!r} cannot be sent in a header",
                "use ASCII: a name or an address of mail",
            )
        self.url = url.rstrip("/")
        self.actor = actor
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # A controller on this machine or network is reached directly, whatever proxy is set.
        headers = {ACTOR_HEADER: actor} if actor else {}
        shown = credentials.checked_for(
            self.url, token or credentials.token_of(os.environ), os.environ
        )
        if shown is not None:
            headers["authorization"] = f"Bearer {shown}"
        self._http = httpx.Client(
            timeout=timeout,
            transport=transport,
            trust_env=False,
            headers=headers,
            verify=credentials.tls_context(os.environ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, /, **query: Any) -> Any:
        return self._call("GET", path, params=_given(query)).json()

    def get_text(self, path: str) -> str:
        return self._call("GET", path).text

    def stream(self, path: str) -> Iterator[bytes]:
        """GET, in chunks as they come, such as an artifact's. Raises ApiError, while it comes
        too."""
        with self._reaching(), self._http.stream("GET", f"{self.url}/v1{path}") as response:
            if not response.is_success:
                response.read()
                raise _refusal(response)
            yield from response.iter_bytes()

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, json=body).json()

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, json=body).json()

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body).json()

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path).json()

    def read(self, kind: type[Answer], path: str, /, **query: Any) -> Answer:
        """GET, as a document of `kind`. Raises AnswerError for an answer that is none."""
        return self._typed(kind, self._call("GET", path, params=_given(query)))

    def send(self, kind: type[Answer], method: str, path: str, body: Any = None) -> Answer:
        """Change something; the answer as a document of `kind`."""
        return self._typed(kind, self._call(method, path, json=body))

    def publish(
        self,
        model: Path,
        name: str,
        version: str,
        manifest: Path | None = None,
        baseline: Path | None = None,
    ) -> Any:
        """Send a model file. Raises ApiError, and OSError for a file that cannot be read."""
        named = {"model": model, "manifest": manifest, "baseline": baseline}
        files = {
            field: (path.name, path.read_bytes())
            for field, path in named.items()
            if path is not None
        }
        return self._call("POST", _version_path(name, version), files=files).json()

    def upload(
        self, kind: type[Answer], name: str, version: str, files: Mapping[str, bytes]
    ) -> Answer:
        """Send a version's parts by field: `model`, and perhaps `manifest` and `baseline`."""
        parts = {field: (field, content) for field, content in files.items()}
        return self._typed(kind, self._call("POST", _version_path(name, version), files=parts))

    def _typed(self, kind: type[Answer], response: httpx.Response) -> Answer:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"])) or "the answer"
            raise AnswerError(
                f"{response.request.method} {response.request.url.path} of {self.url} is answered "
                f"with what this client cannot read: {where}: {problem['msg']}",
                "is it an Edgeloop controller, and no newer than this client? "
                "pip install --upgrade edgeloop",
            ) from error

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Waits, and asks again, where the controller is asked too often."""
        for _ in range(BUSY_TRIES_MAX - 1):
            response = self._ask(method, path, **request)
            if response.status_code != TOO_MANY_REQUESTS:
                break
            time.sleep(_retry_after_s(response))
        else:
            response = self._ask(method, path, **request)
        if response.is_success:
            return response
        raise _refusal(response)

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._reaching():
            return self._http.request(method, f"{self.url}/v1{path}", **request)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiError(
                None,
                "unreachable",
                f"no controller answers at {self.url}: {error}",
                "start one with `edgeloop serve`, or give its address by --url, Fleet(url) "
                "or EDGELOOP_URL",
            ) from error


def _retry_after_s(response: httpx.Response) -> float:
    said = response.headers.get("retry-after", "")
    return min(RETRY_AFTER_S_MAX, float(said) if said.isdigit() else RETRY_AFTER_S)


def quoted(part: str) -> str:
    """A name in a URL's path."""
    return quote(part, safe="")


def _version_path(name: str, version: str) -> str:
    return f"/models/{quoted(name)}/versions/{quoted(version)}"


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _refusal(response: httpx.Response) -> ApiError:
    try:
        error = response.json()["error"]
        return ApiError(response.status_code, error["code"], error["message"], error["hint"])
    except (ValueError, KeyError, TypeError):
        text = response.text[:200] or response.reason_phrase
        return ApiError(response.status_code, "failed", f"{response.status_code}: {text}", "")
