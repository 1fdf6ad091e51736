"""An MLflow server's registry, by its REST API over httpx: what a version is, and its files.

Invariants: nothing is read beyond a limit, nor after a deadline; redirects are not followed, so a
credential goes where the operator said; no credential is logged or stands in an error.
"""

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, Final

import httpx

from edgeloop_controller.core.mlflow_versions import (
    READY,
    ModelUri,
    RegisteredVersion,
    registered_version,
)
from edgeloop_controller.errors import MlflowError, NotFoundError, TooLargeError
from edgeloop_controller.mlflow_config import MlflowConfig

API: Final = "/api/2.0/mlflow"
ANSWER_MAX_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
SECRET_MAX_BYTES: Final = 4096
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
SAID_READ_MAX_BYTES: Final = 4096
SAID_MAX_CHARS: Final = 200
MISSING: Final = frozenset({400, 404})
"""MLflow answers 404 where a model or a version is missing, and 400 where an alias is."""


class MlflowRegistry:
    """One server's; `close` ends what is under way, from any thread."""

    def __init__(
        self,
        config: MlflowConfig,
        monotonic: Callable[[], float],
        transport: httpx.BaseTransport | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = config.tracking_uri.rstrip("/")
        self._config = config
        self._monotonic = monotonic
        self._environment = os.environ if environment is None else environment
        self._closing = threading.Event()
        agent = f"edgeloop-controller/{distribution_version('edgeloop-controller')}"
        self._http = httpx.Client(
            headers={"user-agent": agent, "accept-encoding": "identity"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport,
        )

    def close(self) -> None:
        """A request that waits for an answer waits READ_TIMEOUT_S more at most."""
        self._closing.set()
        self._http.close()

    def deadline(self) -> float:
        """By the monotonic clock: for all that is asked of one version from now on."""
        return self._monotonic() + self._config.timeout_s

    def look_up(self, uri: ModelUri, deadline: float) -> RegisteredVersion:
        """Raises NotFoundError or MlflowError."""
        if uri.alias is not None:
            path, query = f"{API}/registered-models/alias", {"alias": uri.alias}
        else:
            path, query = f"{API}/model-versions/get", {"version": str(uri.version)}
        with self._get(path, {"name": uri.model, **query}, deadline) as response:
            if response.status_code in MISSING:
                raise NotFoundError(
                    f"MLflow has no {uri}: {_said(self._read(response, deadline, None))}",
                    hint="see the registry in MLflow; models:/NAME@ALIAS or models:/NAME/NUMBER",
                )
            self._check(response, deadline)
            content = self._read(response, deadline, ANSWER_MAX_BYTES, "MLflow's answer")
        try:
            found = registered_version(_json(content))
        except ValueError as error:
            raise self._failed(f"does not answer as MLflow does ({error})") from error
        if found.status != READY:
            raise MlflowError(
                f"MLflow says that {uri} is {found.status}", hint="wait until it is registered"
            )
        return found

    def file(
        self, found: RegisteredVersion, path: str, max_bytes: int, deadline: float
    ) -> bytes | None:
        """None: there is no such file. Raises TooLargeError or MlflowError."""
        query = {"name": found.model, "version": found.version, "path": path}
        with self._get("/model-versions/get-artifact", query, deadline) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                return None
            self._check(response, deadline)
            what = f"{path} of models:/{found.model}/{found.version}"
            return self._read(response, deadline, max_bytes, what)

    @contextmanager
    def _get(
        self, path: str, query: Mapping[str, str], deadline: float
    ) -> Iterator[httpx.Response]:
        if self._closing.is_set() or self._monotonic() > deadline:
            raise self._too_slow()
        try:
            with self._http.stream(
                "GET", f"{self.uri}{path}", params=query, headers=self._authorization()
            ) as response:
                yield response
        except httpx.TimeoutException as error:
            raise self._too_slow() from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._closing.is_set():
                raise
            raise self._failed(f"cannot be asked: {error or type(error).__name__}") from error

    def _check(self, response: httpx.Response, deadline: float) -> None:
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self._failed(
                f"refuses the controller ({response.status_code})",
                "set [mlflow] secret_file (and username), or MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; it needs to read models",
            )
        if not response.is_success:
            said = _said(self._read(response, deadline, None))
            raise self._failed(f"answered {response.status_code}: {said}")

    def _read(
        self,
        response: httpx.Response,
        deadline: float,
        max_bytes: int | None,
        what: str = "",
    ) -> bytes:
        """`max_bytes` None: the beginning is enough. Raises TooLargeError or MlflowError."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._failed("packs what it was asked to send as it is")  # its size is unknown
        content = bytearray()
        for chunk in response.iter_raw(CHUNK_BYTES):
            content += chunk
            if max_bytes is None and len(content) >= SAID_READ_MAX_BYTES:
                break
            if max_bytes is not None and len(content) > max_bytes:
                raise TooLargeError(
                    f"{what} is above the limit of {max_bytes} bytes",
                    hint="the controller's [limits] say how large models and baselines may be",
                )
            if self._closing.is_set() or self._monotonic() > deadline:
                raise self._too_slow()
        return bytes(content)

    def _authorization(self) -> dict[str, str]:
        """Read each time, so that a rotation needs no restart. Raises MlflowError."""
        config, environment = self._config, self._environment
        if config.secret_file is not None:
            secret = self._secret(config.secret_file)
            return _basic(config.username, secret) if config.username else _bearer(secret)
        username = environment.get("MLFLOW_TRACKING_USERNAME")
        password = environment.get("MLFLOW_TRACKING_PASSWORD")
        if username and password:
            return _basic(username, password)
        token = environment.get("MLFLOW_TRACKING_TOKEN")
        return _bearer(token) if token else {}

    def _secret(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                secret = file.read(SECRET_MAX_BYTES + 1).strip().decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not ASCII"
            raise MlflowError(
                f"cannot read [mlflow] secret_file {path}: {reason}",
                hint="one line: the password, or without a username a token",
            ) from error
        if not secret.isprintable() or not 0 < len(secret) <= SECRET_MAX_BYTES:
            raise MlflowError(
                f"[mlflow] secret_file {path} holds no secret",
                hint="one line: the password, or without a username a token",
            )
        return secret

    def _too_slow(self) -> MlflowError:
        if self._closing.is_set():
            return MlflowError("the controller is stopping", hint="ask it again")
        return self._failed(
            f"did not answer within {self._config.timeout_s:g} s, or was silent for "
            f"{READ_TIMEOUT_S:g} s",
            "look at its load and at the network, or raise [mlflow] timeout_s",
        )

    def _failed(self, what: str, hint: str = "") -> MlflowError:
        return MlflowError(
            f"the MLflow server {self.uri} {what}",
            hint or "is [mlflow] tracking_uri right, and does `mlflow server` run there?",
        )


def _basic(username: str, password: str) -> dict[str, str]:
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"authorization": f"Basic {pair}"}


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _said(content: bytes) -> str:
    """MLflow's own words, shortened; of another server the beginning of what it says."""
    try:
        text = str(_json(content)["message"])
    except (ValueError, KeyError, TypeError):
        text = content.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:SAID_MAX_CHARS].strip()
