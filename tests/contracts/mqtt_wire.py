"""A very small MQTT 3.1.1 client over asyncio streams with TLS, for tests with hundreds of clients:
it says what it is told, also what no proper client would say."""

import asyncio
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0


def _length(size: int) -> bytes:
    made = bytearray()
    while size > 0x7F:
        made.append(0x80 | size & 0x7F)
        size >>= 7
    made.append(size)
    return bytes(made)


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text.encode())) + text.encode()


def packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + _length(len(body)) + body


@dataclass
class Client:
    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: list[tuple[str, bytes]] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    acknowledged: int = 0
    ended: bool = False
    connack: int | None = None
    task: "asyncio.Task[None] | None" = None
    _event: asyncio.Event = field(default_factory=asyncio.Event)
    _mid: int = 0

    @classmethod
    async def connect(
        cls,
        port: int,
        context: ssl.SSLContext,
        name: str,
        will: tuple[str, bytes] | None = None,
        username: str | None = None,
    ) -> "Client":
        """`connack` is None when the broker closed the connection, also within the handshake."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="127.0.0.1"
        )
        client = cls(name, reader, writer)
        client.task = asyncio.create_task(client._read())
        flags, payload = 2, _text(name)
        if will is not None:
            flags |= 4 | 8
            payload += _text(will[0]) + struct.pack("!H", len(will[1])) + will[1]
        if username is not None:
            flags |= 0x80
            payload += _text(username)
        body = _text("MQTT") + bytes((4, flags)) + struct.pack("!H", 60) + payload
        client._say(packet(CONNECT, body))
        await client.until(lambda: client.connack is not None or client.ended)
        return client

    def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        mid = b""
        if qos:
            self._mid = self._mid % 65000 + 1
            mid = struct.pack("!H", self._mid)
        self._say(packet(PUBLISH | qos << 1, _text(topic) + mid + payload))

    def subscribe(self, *filters: str, qos: int = 0) -> None:
        self._mid = self._mid % 65000 + 1
        body = struct.pack("!H", self._mid) + b"".join(
            _text(one) + bytes((qos,)) for one in filters
        )
        self._say(packet(SUBSCRIBE, body))

    def ping(self) -> None:
        self._say(packet(PINGREQ, b""))

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._event.clear()
                if condition():
                    return
                await self._event.wait()

    def drop(self) -> None:
        """Without a DISCONNECT, so that a will is due."""
        self.writer.transport.abort()

    async def close(self) -> None:
        if not self.ended:
            self._say(packet(DISCONNECT, b""))
        self.writer.close()
        if self.task is not None:
            self.task.cancel()

    def _say(self, content: bytes) -> None:
        if not self.ended and not self.writer.is_closing():
            self.writer.write(content)

    async def _read(self) -> None:
        try:
            while True:
                head = (await self.reader.readexactly(1))[0]
                size = shift = 0
                while True:
                    byte = (await self.reader.readexactly(1))[0]
                    size |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                self._take(head, await self.reader.readexactly(size))
                self._event.set()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended = True
            self._event.set()

    def _take(self, head: int, body: bytes) -> None:
        kind = head & 0xF0
        if kind == CONNACK:
            self.connack = body[1]
        elif kind == PUBACK:
            self.acknowledged += 1
        elif kind == 0x90:
            self.granted += list(body[2:])
        elif kind == PINGRESP:
            self.granted.append(-1)
        elif kind == PUBLISH:
            end = 2 + struct.unpack_from("!H", body)[0]
            topic = body[2:end].decode()
            if head & 6:
                self._say(packet(PUBACK, body[end : end + 2]))
                end += 2
            self.received.append((topic, body[end:]))
