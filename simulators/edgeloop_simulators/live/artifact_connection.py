"""One kept HTTP connection to an artifact server, on the loop: a request, then its answer.

A plain answer, of a status, headers and a Content-Length, is read here: ten thousand devices have
two each, and their heads are alike. What else a server may say goes to h11, from its first byte.

Invariants: one request is underway at most; `ask` ends in READ_TIMEOUT_S, and what came until then
is in the answer, whole or not; after anything but a plain and whole answer it is not used again.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from edgeloop_agent.shell.http_source import READ_TIMEOUT_S

HEAD_END: Final = b"\r\n\r\n"
PLAIN_HEAD_MAX_BYTES: Final = 16 * 1024
_FOR_H11: Final = frozenset({b"connection", b"transfer-encoding"})
_WITHOUT_CONTENT: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(slots=True)
class Answer:
    """Judged as HttpArtifactSource does it: a server may ignore Range."""

    offset: int
    status: int = 0
    end: str = ""
    body: bytes = b""

    @property
    def content(self) -> bytes:
        if self.status == HTTPStatus.OK:
            return self.body[self.offset :] if self.offset else self.body
        return self.body if self.status == HTTPStatus.PARTIAL_CONTENT else b""

    def problem(self, what: str) -> str:
        offset, status = self.offset, self.status
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return "" if self.end == f"bytes */{offset}" else f"{what} has no byte {offset}"
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return f"{what} answered {status}"
        if status == HTTPStatus.OK and len(self.body) < offset:
            return f"{what} has no byte {offset}"
        return ""


class ArtifactConnection(asyncio.Protocol):
    """`ask` raises OSError or h11.ProtocolError; close it then."""

    def __init__(self, host: str) -> None:
        self.is_usable = False
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._answer = Answer(0)
        self._came = b""
        """Of a head that is not whole."""
        self._chunks: list[bytes] = []
        self._left: int | None = None
        """Of a plain answer's content; None: its head is not read."""
        self._http: h11.Connection | None = None
        """Reads an answer that is not plain."""

    async def ask(self, path: str, answer: Answer) -> None:
        if self._transport is None or not self.is_usable:
            raise ConnectionError("the connection has ended")
        self._answer, self._came, self._chunks, self._left = answer, b"", [], None
        headers = [("host", self._host), ("accept-encoding", "identity")]
        if answer.offset:
            headers.append(("range", f"bytes={answer.offset}-"))
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        self._done = self._loop.create_future()
        slow = TimeoutError(f"no answer in {READ_TIMEOUT_S:g} s")
        timer = self._loop.call_later(READ_TIMEOUT_S, self._fail, slow)
        self._transport.write("\r\n".join((*lines, "", "")).encode())
        try:
            await self._done
        finally:
            timer.cancel()
            self._done = None
            answer.body = b"".join(self._chunks)

    def close(self) -> None:
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    # ---- what the loop tells --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_usable = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._http is not None and self._done is not None:
            self._read_by_h11(b"")  # an answer may be as long as its connection
        self._fail(exc or ConnectionError("the connection was cut"))

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self.close()  # nobody asked
        elif self._http is not None:
            self._read_by_h11(data)
        elif self._left is not None:
            self._add(data)
        else:
            self._read_head(self._came + data)

    # ---- inside ---------------------------------------------------------------------------------

    def _read_head(self, came: bytes) -> None:
        end = came.find(HEAD_END)
        if end < 0 and len(came) <= PLAIN_HEAD_MAX_BYTES:
            self._came = came
            return
        plain = _plain_head(came[:end]) if end >= 0 else None
        if plain is None:
            self.is_usable = False
            self._http = h11.Connection(h11.CLIENT)
            self._http.send(h11.Request(method="GET", target="/", headers=[("host", self._host)]))
            self._http.send(h11.EndOfMessage())
            self._read_by_h11(came)
            return
        self._answer.status, self._left, self._answer.end = plain
        self._add(came[end + len(HEAD_END) :])

    def _add(self, content: bytes) -> None:
        assert self._left is not None
        if len(content) > self._left:
            content, self.is_usable = content[: self._left], False
        self._left -= len(content)
        self._chunks.append(content)
        if not self._left:
            self._end()

    def _read_by_h11(self, data: bytes) -> None:
        assert self._http is not None
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    self._answer.end = dict(event.headers).get(b"content-range", b"").decode()
                    self._answer.status = event.status_code
                elif isinstance(event, h11.Data):
                    self._chunks.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._end()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except h11.ProtocolError as error:
            self._fail(error)

    def _end(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        self.is_usable = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


def _plain_head(head: bytes) -> tuple[int, int, str] | None:
    """Status, length of the content and Content-Range; None: that is for h11 to read."""
    first, *lines = head.split(b"\r\n")
    code = first[9:12]
    if not first.startswith(b"HTTP/1.1 ") or not code.isdigit():
        return None
    status, length, content_range = int(code), b"", b""
    if status < HTTPStatus.OK or status in _WITHOUT_CONTENT:
        return None
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or name in _FOR_H11 or (name == b"content-length" and length):
            return None
        if name == b"content-length":
            length = value.strip()
        elif name == b"content-range":
            content_range = value.strip()
    return (status, int(length), content_range.decode("latin-1")) if length.isdigit() else None
