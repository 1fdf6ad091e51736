"""Artifacts from the controller: `GET {controller_url}/v1/artifacts/{sha256}` with Range.

Invariants: built on http.client, which the supervisor has loaded anyway (ADR 0018); a server that
ignores Range is read from its beginning; proxies of the environment are used, redirects are not
followed; whatever goes wrong on the link is FetchUnreachableError, and what goes wrong at whoever
reads passes through as it is; no body is read faster than `pace` grants, and READ_TIMEOUT_S is of
the link alone: it does not run while a read waits for its grant; who answers too slowly
(core.rate_watch, HEADERS_TIMEOUT_S) is unreachable.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from edgeloop_agent.core.rate_watch import RATE_MIN_BYTES_PER_S, RateWatch
from edgeloop_agent.errors import FetchMissingError, FetchUnreachableError
from edgeloop_agent.shell.paced_reads import PacedReads
from edgeloop_agent.shell.proxies import Proxy, proxy_for

if TYPE_CHECKING:
    from edgeloop_protocol.tls_config import TlsConfig

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
HEADERS_TIMEOUT_S: Final = 60.0
"""For all of an answer's headers, however they drip."""
HTTPS_PORT: Final = 443
CONTROLLER_TLS: Final = "controller_tls"
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def _ignore(_said_s: float) -> None:
    pass


class HttpArtifactSource:
    """`heard_time` gets what time the controller says it is, with each answer."""

    def __init__(
        self,
        controller_url: str,
        heard_time: Callable[[float], None] = _ignore,
        pace: PacedReads | None = None,
        tls: "TlsConfig | None" = None,
    ) -> None:
        """`tls`: whom to trust and what to show over https; None: the system's authorities."""
        self._tls = tls
        self._base = f"{controller_url.rstrip('/')}/v1/artifacts"
        self._heard_time = heard_time
        self._pace = pace or PacedReads()

    @contextmanager
    def open(self, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
        url = f"{self._base}/{digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _get(url, headers, self._pace.receive_buffer_bytes(), self._tls) as response:
            said_s = _time_said(response)
            if said_s is not None:
                self._heard_time(said_s)
            yield self._chunks(response, url, offset)

    def _chunks(self, response: HTTPResponse, url: str, offset: int) -> Iterator[bytes]:
        status = response.status
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            if response.headers.get("Content-Range", "") == f"bytes */{offset}":
                return  # exactly at the end
            raise FetchUnreachableError(f"{url} has no byte {offset}")
        if status == HTTPStatus.NOT_FOUND:
            raise FetchMissingError(f"{url} answered {status}")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise FetchUnreachableError(f"{url} answered {status}")
        skip = offset if status == HTTPStatus.OK else 0
        for chunk in _body(response, url, self._pace):
            if skip < len(chunk) or not chunk:
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))
        if skip:
            raise FetchUnreachableError(f"{url} has no byte {offset}")


def get_chunks(url: str, tls: ssl.SSLContext | None = None) -> Iterator[bytes]:
    """A whole body. Raises FetchMissingError where the server says that it has none (404, 403),
    else FetchUnreachableError, also while iterating. `tls` None: the system's authorities."""
    with _get(url, {}, tls=tls) as response:
        if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
            raise FetchMissingError(f"{url} answered {response.status}")
        if response.status != HTTPStatus.OK:
            raise FetchUnreachableError(f"{url} answered {response.status}")
        yield from _body(response, url, PacedReads())


def _body(response: HTTPResponse, url: str, pace: PacedReads) -> Iterator[bytes]:
    """What each read brings, so that nothing that came is lost when the link is cut; nothing at all
    after a wait."""
    watch = RateWatch()
    try:
        while True:
            size = pace.next_read_bytes()
            asked_at = time.monotonic()
            chunk = response.read1(size) if size else b""
            waited_s = time.monotonic() - asked_at
            if size and not chunk:
                break
            pace.took(len(chunk))
            yield chunk
            if size and watch.is_too_slow(len(chunk), waited_s):
                raise FetchUnreachableError(f"{url}: slower than {RATE_MIN_BYTES_PER_S} bytes/s")
    except (OSError, HTTPException) as error:
        raise FetchUnreachableError(f"{url}: {_in_words(error)}") from error
    if response.length:
        ended = f"the connection ended {response.length} bytes early"
        raise FetchUnreachableError(f"{url}: {ended}")


def get_headers(url: str, tls: "TlsConfig | None" = None) -> tuple[int, Mapping[str, str]]:
    """Status and headers of a GET, names in lower case. Raises FetchUnreachableError."""
    with _get(url, {}, tls=tls) as response:
        return response.status, {name.lower(): value for name, value in response.getheaders()}


@contextmanager
def _get(
    url: str,
    headers: Mapping[str, str],
    receive_buffer_bytes: int | None = None,
    tls: "TlsConfig | ssl.SSLContext | None" = None,
) -> Iterator[HTTPResponse]:
    try:
        parts = urlsplit(url)
        proxy = proxy_for(parts.scheme, parts.hostname or "")
        connection, target, extra = way_to(url, parts, proxy, tls)
    except (ValueError, HTTPException, OSError) as error:  # a TlsFileError is an OSError
        raise FetchUnreachableError(f"{url}: {error}") from error
    with closing(connection):
        try:
            connection.connect()
            connection.sock.settimeout(READ_TIMEOUT_S)
            if receive_buffer_bytes is not None:
                connection.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes
                )
            asked = {"Accept-Encoding": "identity", **extra, **headers}
            connection.request("GET", target, headers=asked)
            with _within(HEADERS_TIMEOUT_S, connection.sock):
                response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise FetchUnreachableError(f"{url}: {_in_words(error)}") from error
        with response:
            yield response


@contextmanager
def _within(timeout_s: float, link: socket.socket) -> Iterator[None]:
    """Cut the link if it takes longer: whoever reads from it reads its end, and is told by an
    OSError that it was none."""
    is_over = threading.Event()

    def cut() -> None:
        is_over.set()
        with suppress(OSError):  # it has ended by itself
            link.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError(f"no whole answer within {timeout_s:g} s")


def way_to(
    url: str,
    parts: SplitResult,
    proxy: Proxy | None,
    tls: "TlsConfig | ssl.SSLContext | None" = None,
) -> tuple[HTTPConnection, str, Mapping[str, str]]:
    """Whom to connect to, what to ask for there, and the headers that the proxy wants."""
    host, port = parts.hostname or "", parts.port
    to = (proxy.host, proxy.port) if proxy else (host, port)
    if parts.scheme == "https":
        secure = HTTPSConnection(*to, timeout=CONNECT_TIMEOUT_S, context=_context(tls))
        if proxy:
            secure.set_tunnel(host, port or HTTPS_PORT, headers=dict(proxy.headers))
        return secure, parts.path, {}
    plain = HTTPConnection(*to, timeout=CONNECT_TIMEOUT_S)
    return (plain, url, proxy.headers) if proxy else (plain, parts.path, {})


def _context(tls: "TlsConfig | ssl.SSLContext | None") -> ssl.SSLContext:
    """Made anew each time: a renewed certificate is used from the next connection on."""
    if tls is None:
        return ssl.create_default_context()
    if isinstance(tls, ssl.SSLContext):
        return tls
    # Only here: who verifies metadata reads over HTTP too, and brings its own context.
    from edgeloop_protocol.tls import client_context

    return client_context(tls, CONTROLLER_TLS)


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        today = time.strftime("%Y-%m-%d", time.gmtime())
        if error.verify_code == _NOT_YET_VALID:
            return (
                f"the controller's certificate is not valid yet, says this device's clock, which "
                f"stands at {today}: set the clock"
            )
        if error.verify_code == _EXPIRED:
            return (
                f"the controller's certificate has expired, says this device's clock, which stands "
                f"at {today}: renew the certificate, or set the clock"
            )
        return f"the controller's certificate is not trusted: {error.verify_message}"
    return str(error) or type(error).__name__


def _time_said(response: HTTPResponse) -> float | None:
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        return None
