"""Who is at the other end of a TLS connection: uvicorn's protocol, that tells it to the
application.

Invariants: `scope["state"][PEER]` is there only if the handshake verified the client's certificate
(by our authorities, for clients, within its dates); nothing that a request says can put it there.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

PEER: Final = "tls_peer"


@dataclass(frozen=True)
class Peer:
    name: str
    """The CN."""
    serial: str
    """Hexadecimal, lower case, no leading zeros: as `ca.authority.Issued` has it."""


class PeerProtocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        shown: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        peer = _peer(shown.getpeercert()) if shown is not None else None
        if peer is not None:
            # What every request of this connection gets a copy of.
            self.app_state = {**self.app_state, PEER: peer}


def peer_of(scope: Scope) -> Peer | None:
    found = scope.get("state", {}).get(PEER)
    return found if isinstance(found, Peer) else None


def _peer(certificate: Any) -> Peer | None:
    if not certificate:
        return None
    names = [value for rdn in certificate["subject"] for key, value in rdn if key == "commonName"]
    serial = certificate["serialNumber"].lower().lstrip("0")
    return Peer(names[0], serial) if len(names) == 1 else None
