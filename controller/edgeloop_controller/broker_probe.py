"""One MQTT connection for one question: does the broker let this client in? No paho: nothing here
reconnects, and whoever is let in has taken the client id over by then.

Invariants: everything within TIMEOUT_S; the key that is shown never rests in a file that others can
read, and is gone from disk once it is loaded.
"""

import os
import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_controller.ca.authority import Issued, key_pem
from edgeloop_protocol.mqtt import BrokerAddress

TIMEOUT_S: Final = 4.0
CONNACK: Final = 0x20
ACCEPTED: Final = 0
_PROTOCOL: Final = b"\0\4MQTT\4\2\0\x1e"
"""MQTT 3.1.1, a clean session, keepalive 30 s."""
_DISCONNECT: Final = b"\xe0\0"


@dataclass(frozen=True)
class Shown:
    """A certificate and its key, for one connection."""

    key: bytes
    chain: bytes

    @classmethod
    def of(cls, key: object, issued: Issued) -> "Shown":
        return cls(key_pem(key), issued.chain_pem.encode())  # type: ignore[arg-type]


def is_let_in(
    address: BrokerAddress, trusted_pem: str, shown: Shown, client_id: str, directory: Path
) -> bool:
    """Raises OSError when the broker cannot be asked. `directory`: for a file, for a moment."""
    context = _context(trusted_pem, shown, directory)
    server = (address.tls.server_name if address.tls else None) or address.host
    with socket.create_connection((address.host, address.port), TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=server) as link:
                link.sendall(_connect_packet(client_id))
                answer = link.recv(4)
                if len(answer) < 4 or answer[0] != CONNACK or answer[3] != ACCEPTED:
                    return False
                link.sendall(_DISCONNECT)
                return True
        except ssl.SSLCertVerificationError:
            raise  # the broker's own certificate is no good: that is no refusal of ours
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            return False


def _connect_packet(client_id: str) -> bytes:
    body = _PROTOCOL + struct.pack("!H", len(client_id)) + client_id.encode("ascii")
    return bytes((0x10, len(body))) + body  # an id is short: one byte of length


def _context(trusted_pem: str, shown: Shown, directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted_pem)
    descriptor, name = tempfile.mkstemp(dir=directory)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(shown.key + shown.chain)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
    return context
