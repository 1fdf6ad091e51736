"""Certificates that the controller makes for itself and for its broker, in files.

Invariants: renewed at two thirds of their life, or at once when they are of another authority or
for other names; a key's file is its owner's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from edgeloop_controller.ca.authority import (
    YEAR_S,
    Authority,
    key_pem,
    new_key,
)
from edgeloop_controller.ca.secret_files import write_file
from edgeloop_controller.core import enrolment as core

SERVER_LIFETIME_S: Final = 2 * YEAR_S
CLIENT_LIFETIME_S: Final = 90 * 86_400.0


@dataclass(frozen=True)
class ServerFiles:
    certificate: Path
    key: Path

    def keep(
        self, authority: Authority, names: Sequence[str], lifetime_s: float, now: float
    ) -> bool:
        """True: they are new."""
        if _is_good(self.certificate, self.key, authority, names, now):
            return False
        key = new_key()
        begins, ends = core.lifetime(now, lifetime_s, authority.ends)
        issued = authority.issue_server(names, key.public_key(), begins, ends)
        write_file(self.key, key_pem(key))
        write_file(self.certificate, issued.chain_pem.encode(), 0o644)
        return True

    def renew_if_due(self, authority: Authority, now: float) -> bool:
        """For the names that it has; True: it is new."""
        present = _read(self.certificate)
        names = _names(present) if present is not None else []
        return bool(names) and self.keep(authority, names, SERVER_LIFETIME_S, now)


@dataclass(frozen=True)
class ClientFile:
    """Key and certificate of a client of the controller's own, in one file."""

    path: Path
    name: str

    def keep(self, authority: Authority, now: float, lifetime_s: float = CLIENT_LIFETIME_S) -> bool:
        """True: it is new."""
        if _is_good(self.path, self.path, authority, None, now):
            return False
        key = new_key()
        begins, ends = core.lifetime(now, lifetime_s, authority.ends)
        issued = authority.issue_client(self.name, key.public_key(), begins, ends)
        write_file(self.path, key_pem(key) + issued.chain_pem.encode())
        return True


def _is_good(
    path: Path, key: Path, authority: Authority, names: Sequence[str] | None, now: float
) -> bool:
    found = _read(path)
    if found is None or not key.exists() or not authority.has_signed(found):
        return False
    if names is not None and set(_names(found)) != set(names):
        return False
    begins = found.not_valid_before_utc.timestamp()
    return not core.is_renewal_due(begins, found.not_valid_after_utc.timestamp(), now)


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in found]
