"""One HTTP/1.1 connection of the inference server, over h11: bytes in, whole requests out.

Invariants: bounded in what it holds of a request and of answers that its peer does not take; it
reads no next request before the last is answered; between requests, or in the middle of one that
has not come whole, it can be left to another process (`leave`).
"""

from dataclasses import dataclass
from typing import Final

import h11

from edgeloop_agent.runner.handover import Left
from edgeloop_protocol.limits import KIB, MIB

READ_BYTES: Final = 256 * KIB
BODY_MAX_BYTES: Final = 16 * MIB
UNSENT_MAX_BYTES: Final = 32 * MIB


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes


class TooLargeError(Exception):
    """A body above BODY_MAX_BYTES."""


class HttpConnection:
    def __init__(self, left: Left) -> None:
        assert left.connection is not None
        self.socket = left.connection
        self._h11 = h11.Connection(h11.SERVER)
        self._raw = left.unread
        self._unsent = left.unsent
        self._head: h11.Request | None = None
        self._body = bytearray()
        self.is_answering = False
        self.is_over = False
        if self._raw:
            self._h11.receive_data(self._raw)

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> None:
        try:
            chunk = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.is_over = True
            return
        self._raw += chunk
        self._h11.receive_data(chunk)

    def request(self) -> Request | None:
        """The next whole one. Raises h11.RemoteProtocolError and TooLargeError."""
        if self.is_answering or self.is_over:
            return None
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._head = event
                if self._h11.they_are_waiting_for_100_continue:
                    self._say(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                if len(self._body) + len(event.data) > BODY_MAX_BYTES:
                    raise TooLargeError
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._whole()
            elif isinstance(event, h11.ConnectionClosed):
                self.is_over = True
                return None
            else:  # NEED_DATA, PAUSED
                return None

    def _whole(self) -> Request:
        assert self._head is not None
        head, body = self._head, bytes(self._body)
        self._head, self._body, self.is_answering = None, bytearray(), True
        return Request(
            head.method.decode(), head.target.decode("latin-1"), dict(head.headers), body
        )

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """And be ready for the next request, or close when this was the last."""
        if self.is_over:
            return
        self.is_answering = False
        length = ("content-length", str(len(body)))
        self._say(h11.Response(status_code=status, headers=[length, *headers]))
        if body:
            self._say(h11.Data(data=body))
        self._say(h11.EndOfMessage())
        self.flush()
        if self._h11.our_state is h11.MUST_CLOSE:
            self.is_over = not self._unsent
            return
        try:
            self._h11.start_next_cycle()
        except h11.LocalProtocolError:
            self.is_over = True
            return
        self._raw = self._h11.trailing_data[0]

    def flush(self) -> None:
        if not self._unsent:
            return
        try:
            sent = self.socket.send(self._unsent)
            self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.is_over = True
        if len(self._unsent) > UNSENT_MAX_BYTES:
            self.is_over = True
        if not self._unsent and self._h11.our_state is h11.MUST_CLOSE:
            self.is_over = True

    def leave(self) -> Left | None:
        """None: there is nothing to leave, it is over."""
        if self.is_over or self._h11.our_state in (h11.MUST_CLOSE, h11.ERROR, h11.CLOSED):
            return None
        return Left(self.socket, self._raw, self._unsent)

    def close(self) -> None:
        self.is_over = True
        self.socket.close()

    def _say(self, event: h11.Event) -> None:
        self._unsent += self._h11.send(event) or b""
