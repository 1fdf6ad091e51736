"""TLS to the broker: the files are read anew for each connection, and every failure has words.

Invariants: a renewed certificate is used from the next connection on, without a restart; whatever
is wrong with a file, a name, a clock or the other end is an OSError to whoever connects, who tries
again, and a `TlsProblem` (what, where, how to mend) to whoever asks.
"""

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeloop_protocol.tls_config import TlsConfig

TLS_PORT: Final = 8883
BROKER: Final = "[broker] tls"

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and so on; two of them for a name, and an address."""


@dataclass(frozen=True)
class TlsProblem:
    words: str
    mend: str

    def __str__(self) -> str:
        return f"{self.words}: {self.mend}"


class TlsFileError(OSError):
    """A file of the configuration cannot be used."""

    def __init__(self, problem: TlsProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def client_context(config: TlsConfig, where: str = BROKER) -> ssl.SSLContext:
    """`where`: the table of the configuration, for the words. Raises TlsFileError."""
    for key in ("ca_path", "certificate_path", "key_path"):
        path: Path | None = getattr(config, key)
        if path is not None:
            _check_readable(f"{where}.{key}", path)
    try:
        context = ssl.create_default_context(cafile=config.ca_path)
    except ssl.SSLError as error:
        what = "holds no certificate in PEM"
        raise _unusable(f"{where}.ca_path", config.ca_path, what, error) from error
    if config.certificate_path is not None:
        _show(context, config.certificate_path, config.key_path, where)
    return context


def _check_readable(key: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        problem = TlsProblem(
            f"{key}: {path} does not exist", "put the file there, or correct the path"
        )
        raise TlsFileError(problem) from error
    except OSError as error:
        problem = TlsProblem(
            f"{key}: {path} cannot be read by uid {os.geteuid()}: {error.strerror}",
            "chown it to the user that this runs as",
        )
        raise TlsFileError(problem) from error


def _show(
    context: ssl.SSLContext, certificate_path: Path, key_path: Path | None, where: str
) -> None:
    key = f"{where}.key_path" if key_path else f"{where}.certificate_path"
    try:
        context.load_cert_chain(certificate_path, key_path, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = TlsProblem(
                f"{where}.key_path: {key_path or certificate_path} is not the key of the "
                f"certificate {certificate_path}",
                "put the two there that were made together",
            )
            raise TlsFileError(problem) from error
        what = "holds no certificate and key in PEM"
        raise _unusable(key, key_path or certificate_path, what, error) from error
    except _PasswordWantedError as error:
        problem = TlsProblem(
            f"{key}: {key_path or certificate_path} is encrypted",
            "store the key without a password, readable by this user alone",
        )
        raise TlsFileError(problem) from error


class _PasswordWantedError(Exception):
    pass


def _no_password() -> str:
    raise _PasswordWantedError


def _unusable(key: str, path: Path | None, what: str, error: ssl.SSLError) -> TlsFileError:
    said = f" ({error.reason})" if error.reason else ""
    problem = TlsProblem(
        f"{key}: {path} {what}{said}", "put the file there that your authority gave"
    )
    return TlsFileError(problem)


class FreshContext(ssl.SSLContext):
    """Stands where a client wants a context, and makes a new one for each connection."""

    problem: TlsProblem | None
    """Of the newest connection; None: it came about, and did not end by TLS's own doing."""

    def __new__(cls, _config: TlsConfig) -> "FreshContext":
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self.problem = None

    def wrap_socket(  # type: ignore[override]  # as paho calls it
        self, sock: socket.socket, server_hostname: str | None = None, **_more: Any
    ) -> ssl.SSLSocket:
        """Shakes hands at once, so that what goes wrong is known here."""
        self.problem = None
        try:
            context = client_context(self._config)
            context.sslsocket_class = _TellingSocket
            wrapped = context.wrap_socket(
                sock, server_hostname=self._config.server_name or server_hostname
            )
        except OSError as error:
            self.problem = problem_of(error)
            raise
        if isinstance(wrapped, _TellingSocket):
            wrapped.tell = self._hear
        return wrapped

    def _hear(self, error: OSError) -> None:
        self.problem = problem_of(error)


class _TellingSocket(ssl.SSLSocket):
    """Since TLS 1.3 a client learns only when it reads that its certificate was refused."""

    tell: Callable[[OSError], None]

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.tell(error)
            raise


def problem_of(error: OSError) -> TlsProblem:
    """What went wrong between here and the broker, and how to mend it."""
    if isinstance(error, TlsFileError):
        return error.problem
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_their_certificate(error)
    if isinstance(error, ssl.SSLError) and error.reason in _ALERTS:
        return _ALERTS[error.reason]
    if isinstance(error, TimeoutError):
        return TlsProblem("no answer to the TLS handshake", _PLAIN_PORT)
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return TlsProblem("the connection was closed in the TLS handshake", _PLAIN_PORT)
    return TlsProblem(f"TLS failed: {error}", "look into the broker's log for its side of it")


def _of_their_certificate(error: ssl.SSLCertVerificationError) -> TlsProblem:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    clock = f"says the clock here, which stands at {today}"
    if error.verify_code == _NOT_YET_VALID:
        return TlsProblem(f"the broker's certificate is not valid yet, {clock}", "set the clock")
    if error.verify_code == _EXPIRED:
        return TlsProblem(
            f"the broker's certificate, or its authority's, has expired, {clock}",
            "set the clock if it is wrong, else renew the certificate",
        )
    if error.verify_code in _OTHER_NAME:
        return TlsProblem(
            f"the broker's certificate is for another name ({error.verify_message.rstrip('.')})",
            "set [broker] host to a name that it holds, or tls.server_name where host is only "
            "the way there",
        )
    return TlsProblem(
        f"nobody trusted here vouches for the broker's certificate ({error.verify_message})",
        "set [broker] tls.ca_path to the certificate of the authority that signed it",
    )


_PLAIN_PORT: Final = (
    f"is this the broker's plain port? Set [broker] port to that of TLS, most often {TLS_PORT}, "
    "or leave tls out"
)
_NEW_CERTIFICATE: Final = "renew the files at [broker] tls.certificate_path and key_path"
_NO_TLS: Final = TlsProblem("what answers there speaks no TLS", _PLAIN_PORT)
_UNTRUSTED: Final = TlsProblem(
    "the broker does not accept the certificate that was shown to it",
    "have it signed by an authority that the broker trusts, or give the broker that authority",
)
_ALERTS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": TlsProblem(
        "the broker wants a certificate of this client",
        "set [broker] tls.certificate_path and key_path",
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": TlsProblem(
        "the broker says that the certificate shown to it has expired", _NEW_CERTIFICATE
    ),
    "SSLV3_ALERT_CERTIFICATE_REVOKED": TlsProblem(
        "the broker says that the certificate shown to it is revoked", _NEW_CERTIFICATE
    ),
    "TLSV1_ALERT_UNKNOWN_CA": _UNTRUSTED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _UNTRUSTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _UNTRUSTED,
    "TLSV1_ALERT_DECRYPT_ERROR": _UNTRUSTED,
}
