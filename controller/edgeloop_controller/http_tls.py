"""TLS of the controller's own listener: its certificate, and who is asked for theirs.

Invariants: a client's certificate is optional in the handshake and verified if shown; a renewed
certificate of ours is used from the next connection on, without a restart.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.own_certificates import SERVER_LIFETIME_S, ServerFiles
from edgeloop_controller.config import HttpConfig, HttpTlsConfig
from edgeloop_controller.errors import StartError


@dataclass(frozen=True)
class HttpTls:
    """`issued`: by our authority, and ours to renew; None: the operator's files."""

    context: ssl.SSLContext
    certificate: Path
    key: Path
    issued: ServerFiles | None
    names: tuple[str, ...]

    def renew_if_due(self, authority: Authority, now: float) -> None:
        if self.issued and self.issued.keep(authority, self.names, SERVER_LIFETIME_S, now):
            self.context.load_cert_chain(self.certificate, self.key)


def listening_tls(
    http: HttpConfig, tls: HttpTlsConfig, directory: Path, authority: Authority, now: float
) -> HttpTls:
    """Raises StartError."""
    issued, names = None, http.names
    certificate, key = tls.certificate_path, tls.key_path
    if certificate is None or key is None:
        issued = ServerFiles(directory / "http.pem", directory / "http.key")
        issued.keep(authority, names, SERVER_LIFETIME_S, now)
        certificate, key = issued.certificate, issued.key
    elif key.exists() and key.stat().st_mode & 0o077:
        raise StartError(f"others than its owner can read {key}", hint=f"chmod 600 {key}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority.issuers_pem)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise StartError(
            f"[http.tls] {certificate} and {key} cannot be used: {error}",
            hint="give a certificate and its key in PEM, the key without a password",
        ) from error
    return HttpTls(context, certificate, key, issued, names)


def _no_password() -> str:
    raise ValueError("the key is encrypted")
