"""JSON to and from the controller, for enrolment: over http.client, with the proxies of the
environment.

Invariants: a token or a certificate's request goes over TLS to an authority that was named, or to
loopback, and nowhere else; an answer is at most ANSWER_MAX_BYTES.
"""

import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from edgeloop_agent.enrolment.keys import certificate_fingerprint
from edgeloop_agent.errors import EnrolmentError, NewKeyWantedError, NotReachedError
from edgeloop_agent.shell.http_source import way_to
from edgeloop_agent.shell.proxies import proxy_for
from edgeloop_protocol.loopback import is_loopback
from edgeloop_protocol.tls import TlsFileError, problem_of
from edgeloop_protocol.tls_config import TlsConfig

TIMEOUT_S: Final = 20.0
ANSWER_MAX_BYTES: Final = 256 * 1024
CONFLICT: Final = 409


class Controller:
    def __init__(self, url: str, tls: TlsConfig | None) -> None:
        """Raises EnrolmentError for a URL that secrets must not go to."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise EnrolmentError(
                f"{url} is not https, and not this machine: whoever listens would get the token. "
                "Use the controller's https address"
            )
        self._url = url.rstrip("/")
        self._tls = tls

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NotReachedError (try again), NewKeyWantedError, EnrolmentError."""
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        url = f"{self._url}/v1{path}"
        try:
            status, content = _exchange(method, url, body, self._tls)
            document = json.loads(content)
        except TlsFileError as error:
            raise EnrolmentError(str(error)) from error
        except ssl.SSLError as error:
            raise NotReachedError(f"{url}: {_of_controller(error)}") from error
        except (OSError, HTTPException) as error:
            raise NotReachedError(f"{url}: {error or type(error).__name__}") from error
        except ValueError as error:
            raise NotReachedError(f"{url} does not answer as a controller: {error}") from error
        if status < 300 and isinstance(document, dict):
            return document
        raise _refusal(url, status, document)


def authority_by_fingerprint(url: str, fingerprint: str) -> str:
    """The controller's authority, in PEM: fetched from whoever answers, and believed only if it is
    the one that `fingerprint` (SHA-256, hexadecimal) names. Nothing secret is sent."""
    wanted = fingerprint.replace(":", "").strip().lower()
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        _, content = _exchange("GET", f"{url.rstrip('/')}/v1/enrolments/authority", None, blind)
        pem = json.loads(content)["authority"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise NotReachedError(f"{url} does not show its authority: {error}") from error
    found = certificate_fingerprint(pem)
    if found != wanted:
        raise EnrolmentError(
            f"{url} shows the authority {found}, not {wanted}: it is another controller, or "
            "somebody stands between"
        )
    return str(pem)


def _exchange(
    method: str, url: str, body: bytes | None, tls: TlsConfig | ssl.SSLContext | None
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    proxy = proxy_for(parts.scheme, parts.hostname or "")
    connection, target, extra = way_to(url, parts, proxy, tls)
    with closing(connection):
        connection.timeout = TIMEOUT_S
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **extra}
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read(ANSWER_MAX_BYTES + 1)
        if len(content) > ANSWER_MAX_BYTES:
            raise ValueError(f"an answer above {ANSWER_MAX_BYTES} bytes")
        return response.status, content


def _refusal(url: str, status: int, document: Any) -> EnrolmentError:
    try:
        error = document["error"]
        words = str(error["message"])
        words += f": {error['hint']}" if error.get("hint") else ""
    except (KeyError, TypeError):
        return NotReachedError(f"{url} answered {status}")
    if status >= 500 or status == 429:
        return NotReachedError(words)
    if status == CONFLICT:
        return NewKeyWantedError(words)
    return EnrolmentError(words)


def _of_controller(error: ssl.SSLError) -> str:
    words = problem_of(error).words
    return words.replace("the broker", "the controller")
