"""paho without its own input and output: what a loop with thousands of clients needs it to do.

paho reads a packet by three calls to the kernel, one packet each time that its socket is readable,
and writes each packet by itself, under locks that one thread does not need. Here a socket is read
once for all packets that have come and written once for all that were said since. All else is
paho's: the session's state, what is in flight, what is said again after a reconnect, keepalive.

Invariants: everything is called on the loop's thread; a packet that is no PUBACK of QoS 1 and no
PUBLISH goes through paho's own hands; what a connection left unread or unsent ends with it.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import MessageState, MessageType, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

READ_BYTES: Final = 64 * 1024
REMAINING_LENGTH_BYTES_MAX: Final = 4
KIND: Final = 0xF0
QOS_1_BIT: Final = 2
QOS_2_BIT: Final = 4
PUBLISH: Final = int(MessageType.PUBLISH)
PUBLISH_QOS_1: Final = PUBLISH | QOS_1_BIT
PUBACK: Final = int(MessageType.PUBACK)
PUBACK_HEAD: Final = bytes((PUBACK, 2))
SUCCESS: Final = MQTTErrorCode.MQTT_ERR_SUCCESS
LOST: Final = MQTTErrorCode.MQTT_ERR_CONN_LOST
PROTOCOL: Final = MQTTErrorCode.MQTT_ERR_PROTOCOL

_number: Final = struct.Struct("!H")


def _nothing(*_: object) -> None:
    """Until it is known who listens."""


class _Said(paho.MQTTMessage):
    """A message in flight, without what paho gives it for threads that wait for it."""

    def __init__(self, mid: int, topic: bytes, payload: bytes) -> None:
        self.timestamp = 0.0
        self.state = MessageState.MQTT_MS_WAIT_FOR_PUBACK
        self.dup = self.retain = False
        self.mid, self.qos = mid, 1
        self.topic = topic
        self.payload = payload
        self.properties = None


class LoopClient(paho.Client):
    """`hear` is told of each message; `write_soon` is called once for all until `loop_write`."""

    connected_socket: socket.socket | None = None
    """paho's own connect blocks: it is given a socket that the loop has connected."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.hear: Callable[[str, bytes], None] = _nothing
        self.write_soon: Callable[[], None] = _nothing
        self._unread = b""
        self._unsent: list[bytes | bytearray] = []

    def _create_socket(self) -> socket.socket:
        self._unread, self._unsent = b"", []
        given, self.connected_socket = self.connected_socket, None
        if given is None:
            raise OSError("paho wants a socket that nobody connected")
        return given

    # ---- what is said ---------------------------------------------------------------------------

    def say(self, topic: str, payload: bytes) -> bool:
        """At QoS 1. False: there is no connection, or too much waits for the broker already."""
        under_way = self._out_messages
        if self._sock is None or len(under_way) >= self._max_queued_messages:
            return False
        mid = self._mid_generate()
        if mid in under_way:
            return False
        name = topic.encode()
        message = under_way[mid] = _Said(mid, name, payload)
        if self._inflight_messages >= self._max_inflight_messages:
            message.state = MessageState.MQTT_MS_QUEUED
            return True
        self._inflight_messages += 1
        self._queue(_publish_packet(name, mid, payload))
        return True

    def _packet_queue(
        self,
        command: int,  # noqa: ARG002
        packet: bytes | bytearray,
        mid: int,  # noqa: ARG002
        qos: int,  # noqa: ARG002
        info: paho.MQTTMessageInfo | None = None,  # noqa: ARG002
    ) -> MQTTErrorCode:
        self._queue(packet)
        return SUCCESS

    def _queue(self, packet: bytes | bytearray) -> None:
        self._unsent.append(packet)
        if len(self._unsent) == 1:
            self.write_soon()

    def want_write(self) -> bool:
        return bool(self._unsent)

    def loop_write(self) -> MQTTErrorCode:
        sock, packets = self._sock, self._unsent
        if sock is None or not packets:
            return SUCCESS
        written = packets[0] if len(packets) == 1 else b"".join(packets)
        try:
            sent = sock.send(written)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._loop_rc_handle(LOST)
        packets[:] = [written[sent:]] if sent < len(written) else ()
        self._last_msg_out = time.monotonic()
        return SUCCESS

    # ---- what is heard --------------------------------------------------------------------------

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002 - all that came
        sock = self._sock
        if sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            came = sock.recv(READ_BYTES)
        except BlockingIOError:
            return SUCCESS
        except OSError:
            came = b""
        if not came:
            return self._loop_rc_handle(LOST)
        self._last_bytes_received = time.monotonic()
        return self._take_packets(sock, self._unread + came if self._unread else came)

    def _take_packets(self, sock: Any, unread: bytes) -> MQTTErrorCode:
        """All that are whole; the rest waits for its end."""
        at, end = 0, len(unread)
        try:
            while (head := _head(unread, at, end)) is not None:
                start, length = head
                if start + length > end:
                    return SUCCESS
                command, at = unread[at], start + length
                result = self._take(command, unread[start:at])
                if self._sock is not sock:  # what was heard ended the connection
                    return SUCCESS
                if result > 0:
                    return self._loop_rc_handle(result)
        except (MalformedPacket, struct.error, UnicodeDecodeError):
            return self._loop_rc_handle(PROTOCOL)
        finally:
            if self._sock is sock:
                self._unread = unread[at:]
        if end - at > REMAINING_LENGTH_BYTES_MAX:  # and still no length
            return self._loop_rc_handle(PROTOCOL)
        return SUCCESS

    def _take(self, command: int, body: bytes) -> MQTTErrorCode:
        kind = command & KIND
        if kind == PUBACK:
            return self._sent_is_taken(_number.unpack(body)[0])
        if kind == PUBLISH and not command & QOS_2_BIT:
            self._take_message(command, body)
            return SUCCESS
        self._in_packet = {
            "command": command,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
            "to_process": 0,
            "pos": 0,
        }
        return self._packet_handle()

    def _take_message(self, command: int, body: bytes) -> None:
        """PUBACKed as paho does it: once its listener had it."""
        end = 2 + _number.unpack_from(body)[0]
        topic = body[2:end].decode()
        if command & QOS_1_BIT:
            mid = body[end : end + 2]
            _number.unpack(mid)
            self.hear(topic, body[end + 2 :])
            self._queue(PUBACK_HEAD + mid)
        else:
            self.hear(topic, body[end:])

    def _sent_is_taken(self, mid: int) -> MQTTErrorCode:
        under_way = self._out_messages
        if under_way.pop(mid, None) is not None:
            self._inflight_messages -= 1
            if len(under_way) > self._inflight_messages:
                return self._update_inflight()
        return SUCCESS


def _publish_packet(topic: bytes, mid: int, payload: bytes) -> bytes:
    length = 4 + len(topic) + len(payload)
    head = bytearray((PUBLISH_QOS_1,))
    while length > 0x7F:
        head.append(0x80 | length & 0x7F)
        length >>= 7
    head.append(length)
    return b"".join((head, _number.pack(len(topic)), topic, _number.pack(mid), payload))


def _head(unread: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Where the packet's body begins, and its length; None: that has not come whole."""
    length = 0
    for place in range(REMAINING_LENGTH_BYTES_MAX):
        here = at + 1 + place
        if here >= end:
            return None
        byte = unread[here]
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return here + 1, length
    return None
