"""The bare limit beside `make bench-fleet`: what mosquitto and a client or two take at best.

Programs of their own, so that they cost the measured process nothing:

    … bench_bare count PORT MESSAGES              a plain subscriber
    … bench_bare publish PORT MESSAGES DEVICES    a plain publisher
    … bench_bare acknowledge PORT                 acknowledges, and keeps nothing
    … bench_bare exchange PORT MESSAGES DEVICES   a plain publisher that waits for acknowledgements

Each prints one line when it is connected. `count` and `exchange` print a second one, the seconds
from the first message to the last; `publish` and `exchange` begin when they read a line.
"""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from edgeloop_protocol.messages import (
    Ack,
    Record,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import PREFIX, Down, Up, down_topic, parse_up_topic, up_topic
from edgeloop_simulators.bench.model import FEATURES, LABELS
from edgeloop_simulators.fleet import HOST

VERSION: Final = VersionRef(name="live", version="1", manifest_digest="be" * 32)
EPOCH: Final = "00000000000000be"
BINS: Final = 10
TELEMETRY: Final = f"{PREFIX}/+/up/{Up.TELEMETRY}"
TIMEOUT_S: Final = 300.0


def window(random: np.random.Generator) -> WindowSummary:
    """As a device sends it: 30 features in 10 bins."""
    histogram = tuple(random.integers(0, 20, BINS).tolist())
    return WindowSummary(
        slot="main",
        version=VERSION,
        started_at=0.0,
        ended_at=10.0,
        count=100,
        latency_p50_us=10.0,
        latency_p95_us=20.0,
        predictions=tuple(random.integers(0, 20, len(LABELS)).tolist()),
        confidence=histogram,
        features=(histogram,) * FEATURES,
    )


def bare_messages_per_s(port: int, messages: int, devices: int) -> float:
    """From one plain publisher to one plain subscriber, at QoS 1."""
    with (
        _program("count", port, messages) as count,
        _program("publish", port, messages, devices) as publisher,
    ):
        assert publisher.stdin is not None
        assert count.stdout is not None
        publisher.stdin.write("\n")
        publisher.stdin.flush()
        seconds = float(count.stdout.readline())
    return messages / seconds


def bare_exchanges_per_s(port: int, messages: int, devices: int) -> float:
    """From one plain publisher to a bare acknowledger, and its acknowledgements back."""
    with (
        acknowledger(port),
        _program("exchange", port, messages, devices) as publisher,
    ):
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        publisher.stdin.write("\n")
        publisher.stdin.flush()
        seconds = float(publisher.stdout.readline())
    return messages / seconds


def acknowledger(port: int) -> "_Program":
    """A controller that costs next to nothing; ends with the `with` block."""
    return _program("acknowledge", port)


class _Program:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _program(*arguments: object) -> _Program:
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return _Program(process)


class _Listener:
    def __init__(self, hear: Callable[[str, bytes], None]) -> None:
        self.message = hear
        self.ready = threading.Event()

    def connected(self) -> None:
        self.ready.set()

    def disconnected(self, reason: str) -> None:
        """The adapter connects again by itself."""


def _connected(
    port: int, name: str, subscriptions: tuple[str, ...], hear: Callable[[str, bytes], None]
) -> PahoBroker:
    client, listener = PahoBroker(BrokerAddress(HOST, port), name, subscriptions), _Listener(hear)
    client.start(listener)
    listener.ready.wait(TIMEOUT_S)
    print(flush=True)
    return client


def _count(port: int, messages: int) -> None:
    times: list[float] = []
    done = threading.Event()

    def hear(_topic: str, _payload: bytes) -> None:
        times.append(time.perf_counter())
        if len(times) == messages:
            done.set()

    client = _connected(port, "bench-subscriber", (TELEMETRY,), hear)
    done.wait(TIMEOUT_S)
    print(times[-1] - times[0], flush=True)
    client.stop()


def _messages(messages: int, devices: int) -> list[tuple[str, bytes]]:
    random = np.random.default_rng(0)
    made = []
    for number in range(messages):
        record = Record(sequence=1 + number // devices, body=window(random))
        batch = TelemetryBatch(epoch=EPOCH, base=record.sequence, records=(record,))
        made.append((up_topic(f"bare-{number % devices}", Up.TELEMETRY), encode(batch)))
    return made


def _publish(port: int, messages: int, devices: int) -> None:
    made = _messages(messages, devices)
    client = _connected(port, "bench-publisher", (), lambda _topic, _payload: None)
    sys.stdin.readline()
    _send_all(client, made)
    sys.stdin.read()


def _exchange(port: int, messages: int, devices: int) -> None:
    made, done, left = _messages(messages, devices), threading.Event(), messages

    def hear(_topic: str, _payload: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    client = _connected(port, "bench-exchanger", (f"{PREFIX}/+/down/{Down.ACK}",), hear)
    sys.stdin.readline()
    began = time.perf_counter()
    _send_all(client, made)
    done.wait(TIMEOUT_S)
    print(time.perf_counter() - began, flush=True)
    sys.stdin.read()


def _send_all(client: PahoBroker, made: list[tuple[str, bytes]]) -> None:
    for topic, payload in made:
        while not client.publish(topic, payload):
            time.sleep(0.001)  # paho's own bound of what is underway


def _acknowledge(port: int) -> None:
    heard: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    client = _connected(
        port, "bench-acknowledger", (TELEMETRY,), lambda *message: heard.put(message)
    )
    while True:
        topic, payload = heard.get()
        device_id, _ = parse_up_topic(topic)
        batch = decode(TelemetryBatch, payload)
        ack = Ack(epoch=batch.epoch, through=batch.records[-1].sequence)
        _send_all(client, [(down_topic(device_id, Down.ACK), encode(ack))])


if __name__ == "__main__":
    what, port, *numbers = sys.argv[1], *map(int, sys.argv[2:])
    if what == "count":
        _count(port, numbers[0])
    elif what == "publish":
        _publish(port, numbers[0], numbers[1])
    elif what == "exchange":
        _exchange(port, numbers[0], numbers[1])
    else:
        _acknowledge(port)
