"""Connections: uvicorn's protocol, that tells the application who is at the other end of TLS, and
ends a connection whose request does not come.

Invariants: `scope["state"][PEER]` is there only if the handshake verified the client's certificate
(by our authorities, for clients, within its dates); nothing that a request says can put it there.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

PEER: Final = "tls_peer"
HEAD_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True)
class Peer:
    name: str
    """The CN."""
    serial: str
    """Hexadecimal, lower case, no leading zeros: as `ca.authority.Issued` has it."""


class PeerProtocol(H11Protocol):
    """Uvicorn waits for a request's head for ever; many such waits are an attack (slowloris)."""

    head_timeout_s = HEAD_TIMEOUT_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        shown: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        peer = _peer(shown.getpeercert()) if shown is not None else None
        if peer is not None:
            # What every request of this connection gets a copy of.
            self.app_state = {**self.app_state, PEER: peer}
        self._head_timer = self.loop.call_later(self.head_timeout_s, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def peer_of(scope: Scope) -> Peer | None:
    found = scope.get("state", {}).get(PEER)
    return found if isinstance(found, Peer) else None


def _peer(certificate: Any) -> Peer | None:
    if not certificate:
        return None
    names = [value for rdn in certificate["subject"] for key, value in rdn if key == "commonName"]
    serial = certificate["serialNumber"].lower().lstrip("0")
    return Peer(names[0], serial) if len(names) == 1 else None
