"""paho with the loop's own input and output: packets in pieces, packets together, full sockets."""

import socket
from collections.abc import Callable, Iterator

import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgeloop_simulators.live.paho_on_loop import LoopClient

CONNACK = b"\x20\x02\x00\x00"
SOCKET_BYTES = 4096
PUBLISH_QOS_1 = 0x32
INFLIGHT = 2
QUEUED_MAX = 3


class Far:
    """A connected client's other end, and what the client heard."""

    def __init__(self) -> None:
        near, self.socket = socket.socketpair()
        for one in (near, self.socket):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            one.setblocking(False)
        self.heard: list[tuple[str, bytes]] = []
        self.client = LoopClient(
            CallbackAPIVersion.VERSION2,
            client_id="d1",
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        self.client.max_inflight_messages_set(INFLIGHT)
        self.client.max_queued_messages_set(QUEUED_MAX)
        self.client.hear = lambda topic, payload: self.heard.append((topic, payload))
        self.client.connect_async("broker", 1883)
        self.client.connected_socket = near
        self.client.reconnect()
        self.said()
        self.say(CONNACK)
        assert self.client.is_connected()

    def say(self, sent: bytes) -> None:
        self.socket.sendall(sent)
        self.client.loop_read()

    def said(self) -> bytes:
        """All that the client has to say, however often its socket is full."""
        came = b""
        while True:
            self.client.loop_write()
            try:
                came += self.socket.recv(SOCKET_BYTES)
            except BlockingIOError:
                if not self.client.want_write():
                    return came

    def close(self) -> None:
        left = self.client.socket()
        if left is not None:
            left.close()
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[], Far]]:
    made: list[Far] = []

    def one() -> Far:
        made.append(Far())
        return made[-1]

    yield one
    for far in made:
        far.close()


def publish(topic: bytes, payload: bytes, mid: int | None = None) -> bytes:
    number = b"" if mid is None else mid.to_bytes(2)
    body = len(topic).to_bytes(2) + topic + number + payload
    low, high = len(body) & 0x7F, len(body) >> 7
    length = bytes((low | 0x80, high)) if high else bytes((low,))
    return bytes((0x30 if mid is None else PUBLISH_QOS_1,)) + length + body


def numbers(said: bytes) -> list[int]:
    """Of the PUBLISH packets with a payload of one byte that were said, and of nothing else."""
    found = []
    while said:
        assert said[0] == PUBLISH_QOS_1
        end = 2 + said[1]
        found.append(said[end - 1])
        said = said[end:]
    return found


def test_packets_are_heard_whole_wherever_the_stream_was_cut(connect: Callable[[], Far]) -> None:
    first, second = publish(b"d/1/a", b"x" * 300, mid=7), publish(b"d/1/b", b"y")
    for cut in range(1, len(first + second)):
        far = connect()
        far.say((first + second)[:cut])
        far.say((first + second)[cut:])
        assert far.heard == [("d/1/a", b"x" * 300), ("d/1/b", b"y")]
        assert far.said() == b"\x40\x02\x00\x07"
        far.close()


def test_what_a_full_socket_does_not_take_is_sent_later_in_order(
    connect: Callable[[], Far],
) -> None:
    far, payloads = connect(), [bytes([number]) * 100_000 for number in range(INFLIGHT)]
    for payload in payloads:
        assert far.client.say("d/1/up", payload)
    far.client.loop_write()
    assert far.client.want_write()
    said = far.said()
    assert [said.count(payload) for payload in payloads] == [1, 1]
    assert said.index(payloads[0]) < said.index(payloads[1])


def test_what_is_beyond_the_window_follows_a_puback(connect: Callable[[], Far]) -> None:
    far = connect()
    for number in range(INFLIGHT + 1):
        assert far.client.say("d/1/up", bytes([number]))
    assert numbers(far.said()) == [0, 1]
    far.say(b"\x40\x02\x00\x01")
    assert numbers(far.said()) == [2]
    far.say(b"\x40\x02\x00\x01")  # once more: it is known no longer
    assert far.said() == b""


def test_no_more_is_taken_than_may_wait(connect: Callable[[], Far]) -> None:
    far = connect()
    taken = [far.client.say("d/1/up", b"x") for _ in range(QUEUED_MAX + 1)]
    assert taken == [True] * QUEUED_MAX + [False]


@pytest.mark.parametrize(
    "broken",
    [b"\x30\xff\xff\xff\xff\x01", publish(b"\xff\xfe", b"x"), b"\x30\x01\x00", b"\x40\x01\x00"],
    ids=["length", "topic", "publish", "puback"],
)
def test_what_is_no_mqtt_ends_the_connection(connect: Callable[[], Far], broken: bytes) -> None:
    far = connect()
    far.say(publish(b"d/1/a", b"good") + broken)
    assert far.heard == [("d/1/a", b"good")]
    assert far.client.socket() is None
    assert not far.client.say("d/1/up", b"x")


def test_an_end_ends_it_and_nothing_unread_is_left_for_the_next(
    connect: Callable[[], Far],
) -> None:
    far = connect()
    far.say(publish(b"d/1/a", b"whole")[:4])
    far.socket.close()
    far.client.loop_read()
    assert far.client.socket() is None
    near, far.socket = socket.socketpair()
    near.setblocking(False)
    far.client.connected_socket = near
    far.client.reconnect()
    far.say(CONNACK)
    far.say(publish(b"d/1/a", b"new"))
    assert far.heard == [("d/1/a", b"new")]
