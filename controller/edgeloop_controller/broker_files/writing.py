"""`edgeloop broker config`: a directory that a broker can be started with.

Invariants: run again, it changes nothing that is still good: the broker's certificate is renewed
only when it is due or its names are others; secrets are their owner's alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from edgeloop_controller.broker_files import mosquitto, nats
from edgeloop_controller.broker_files.names import CA, CRL, SERVER_CERTIFICATE, SERVER_KEY
from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.own_certificates import SERVER_LIFETIME_S, ServerFiles
from edgeloop_controller.ca.secret_files import make_secret_directory, write_file
from edgeloop_controller.core.enrolment import DeviceKey

READABLE: Final = 0o644


def server_files(directory: Path) -> ServerFiles:
    return ServerFiles(directory / SERVER_CERTIFICATE, directory / SERVER_KEY)


def write_mosquitto(
    directory: Path,
    authority: Authority,
    revoked: Iterable[str],
    names: Sequence[str],
    port: int,
    address: str | None,
    user: str | None,
    now: float,
) -> None:
    """`names`: host names and addresses under which devices reach the broker."""
    directory = _prepared(directory, authority, names, now)
    write_crl(directory, authority, revoked, now)
    _write(directory / mosquitto.ACL, mosquitto.ACL_TEXT)
    text = mosquitto.configuration_text(directory, port, address, user)
    _write(directory / mosquitto.CONFIGURATION, text)


def write_nats(
    directory: Path,
    authority: Authority,
    keys: Iterable[DeviceKey],
    names: Sequence[str],
    port: int,
    address: str | None,
    client_port: int,
    now: float,
) -> None:
    """As `write_mosquitto`."""
    directory = _prepared(directory, authority, names, now)
    write_users(directory, keys)
    text = nats.configuration_text(directory, port, address, client_port, "edgeloop")
    _write(directory / nats.CONFIGURATION, text)


def write_crl(directory: Path, authority: Authority, revoked: Iterable[str], now: float) -> None:
    _write(directory / CRL, authority.revocations(revoked, now))


def crl_second(directory: Path) -> int | None:
    """When the revocation list there was made; None: there is none."""
    try:
        found = x509.load_pem_x509_crl((directory / CRL).read_bytes())
    except (OSError, ValueError):
        return None
    return int(found.last_update_utc.timestamp())


def write_users(directory: Path, keys: Iterable[DeviceKey]) -> None:
    _write(directory / nats.USERS, nats.users_text(keys))


def _prepared(directory: Path, authority: Authority, names: Sequence[str], now: float) -> Path:
    directory = directory.absolute()
    make_secret_directory(directory)
    _write(directory / CA, authority.issuers_pem)
    server_files(directory).keep(authority, names, SERVER_LIFETIME_S, now)
    return directory


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode(), READABLE)
