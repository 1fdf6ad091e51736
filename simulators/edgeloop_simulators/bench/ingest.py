"""What devices say from the broker into the database, against a bare subscriber.

The same messages, from the same publisher process, through the same kind of broker: once to a
paho client that only counts, once to the real controller until its last acknowledgement. Reported
states are not acknowledged: one record of telemetry behind them is.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import iotcore
import numpy as np

from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.messages import (
    Ack,
    DeviceEvent,
    Hello,
    Inventory,
    Record,
    Reported,
    Sample,
    SlotReported,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import EVERY_DEVICE_UP, PREFIX, Up, up_topic
from edgeloop_simulators.bench.loop import controller
from edgeloop_simulators.bench.table import Row
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.fleet import HOST, free_ports

DEVICES = {Up.REPORTED: 500, Up.TELEMETRY: 20}
"""A rollout is many devices that say little, telemetry much of some."""

REPORTS_PER_DEVICE = 20
"""Fewer messages in all than a controller's inbox holds: what it refuses is not said again."""
MESSAGES_PER_DEVICE = 200
RECORDS_PER_MESSAGE = 10
TIMEOUT_S = 120.0
EPOCH = "00000000000000be"
VERSION = VersionRef(name="bench", version="1", manifest_digest="be" * 32)


def ingest_rows(directory: Path) -> list[Row]:
    last = MESSAGES_PER_DEVICE * RECORDS_PER_MESSAGE
    rate, bare = _rates(directory, Up.TELEMETRY, MESSAGES_PER_DEVICE, last)
    reported, reported_bare = _rates(directory, Up.REPORTED, REPORTS_PER_DEVICE, 1)
    floor_is = "bare paho subscriber"
    return [
        Row("reported states into the database", reported, reported_bare, "/s", floor_is, 0),
        Row("telemetry into the database", rate, bare, "/s", floor_is, 0),
        Row(
            "records into the database",
            rate * RECORDS_PER_MESSAGE,
            bare * RECORDS_PER_MESSAGE,
            "/s",
            floor_is,
            0,
        ),
    ]


def _rates(directory: Path, kind: Up, a_device: int, last: int) -> tuple[float, float]:
    """Messages a second: ours, until record `last` of each device is acknowledged; and the bare
    subscriber's."""
    messages = DEVICES[kind] * a_device
    with _broker() as port:
        bare_s = _until_counted(port, kind, messages)
    with _broker() as port, controller(directory / f"ingest-{kind}", broker_port=port):
        ours_s = _until_acknowledged(port, kind, last)
    return messages / ours_s, messages / bare_s


class _Counting:
    """A listener that tells when `done` says so; remembers when the first message came."""

    def __init__(self, done: Callable[[str, bytes], bool]) -> None:
        self._done = done
        self.ready, self.finished = threading.Event(), threading.Event()

    def connected(self) -> None:
        self.ready.set()

    def disconnected(self, reason: str) -> None:
        """The adapter connects again by itself."""

    def message(self, topic: str, payload: bytes) -> None:
        if self._done(topic, payload):
            self.finished.set()


def _until_counted(port: int, kind: Up, messages: int) -> float:
    seen = 0

    def count(topic: str, _payload: bytes) -> bool:
        nonlocal seen
        seen += topic.endswith(kind)
        return seen >= messages

    return _timed(port, kind, EVERY_DEVICE_UP, _Counting(count))


def _until_acknowledged(port: int, kind: Up, last: int) -> float:
    through: dict[str, int] = {}

    def acknowledge(topic: str, payload: bytes) -> bool:
        through[topic] = decode(Ack, payload).through
        return len(through) == DEVICES[kind] and min(through.values()) >= last

    return _timed(port, kind, f"{PREFIX}/+/down/ack", _Counting(acknowledge))


def _timed(port: int, kind: Up, subscription: str, listener: _Counting) -> float:
    client = PahoBroker(BrokerAddress(HOST, port), "bench-listener", (subscription,))
    client.start(listener)
    try:
        if not listener.ready.wait(TIMEOUT_S):
            raise SimulatorError("the benchmark's broker does not answer")
        with subprocess.Popen(
            [sys.executable, "-m", "edgeloop_simulators.bench.ingest", str(port), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as publisher:
            assert publisher.stdin is not None
            assert publisher.stdout is not None
            publisher.stdout.readline()  # connected, messages encoded
            began = time.perf_counter()
            publisher.stdin.write(b"\n")
            publisher.stdin.flush()
            if not listener.finished.wait(TIMEOUT_S):
                raise SimulatorError(f"messages are missing after {TIMEOUT_S:.0f} s")
            return time.perf_counter() - began
    finally:
        client.stop()


@contextmanager
def _broker() -> Iterator[int]:
    (port,) = free_ports(1)
    with iotcore.Broker(port=port, listen=HOST, max_payload_size=2 * PAYLOAD_MAX_BYTES):
        yield port


# ---- the publisher, a process of its own ---------------------------------------------------------


def _batches(device: int) -> list[tuple[str, bytes]]:
    random = np.random.default_rng(device)
    topic = up_topic(f"bench-{device}", Up.TELEMETRY)
    made = []
    for number in range(MESSAGES_PER_DEVICE):
        first = number * RECORDS_PER_MESSAGE + 1
        records = tuple(
            Record(sequence=first + n, body=_window(random) if n == 0 else _sample(random))
            for n in range(RECORDS_PER_MESSAGE)
        )
        made.append((topic, encode(TelemetryBatch(epoch=EPOCH, base=first, records=records))))
    return made


def _reports(device: int) -> list[tuple[str, bytes]]:
    """Each says something new; the last message is one record of telemetry."""
    topic = up_topic(f"bench-{device}", Up.REPORTED)
    states = list(SlotState)
    made = []
    for number in range(REPORTS_PER_DEVICE):
        slot = SlotReported(slot="main", state=states[number % len(states)], candidate=VERSION)
        reported = Reported(epoch=EPOCH, sequence=number + 2, revision=0, slots=(slot,))
        made.append((topic, encode(reported)))
    record = Record(sequence=1, body=DeviceEvent(at=0.0, name="bench"))
    batch = TelemetryBatch(epoch=EPOCH, base=1, records=(record,))
    return [*made, (up_topic(f"bench-{device}", Up.TELEMETRY), encode(batch))]


def _window(random: np.random.Generator) -> WindowSummary:
    histogram = tuple(random.integers(0, 20, 10).tolist())
    return WindowSummary(
        slot="main",
        version=VERSION,
        started_at=0.0,
        ended_at=10.0,
        count=100,
        latency_p50_us=10.0,
        latency_p95_us=20.0,
        predictions=tuple(random.integers(0, 20, 7).tolist()),
        confidence=histogram,
        features=(histogram,) * 30,
    )


def _sample(random: np.random.Generator) -> Sample:
    return Sample(
        slot="main",
        version=VERSION,
        taken_at=0.0,
        reference="bench",
        features=tuple(random.normal(size=30).astype(np.float32).tolist()),
        prediction=1,
        confidence=0.9,
    )


def _hello(device: int) -> tuple[str, bytes]:
    device_id = f"bench-{device}"
    inventory = Inventory(
        agent_version="bench",
        architecture="x86_64",
        python="3.11",
        memory_bytes=2**30,
        disk_free_bytes=2**30,
        cpu_count=1,
    )
    hello = Hello(device_id=device_id, epoch=EPOCH, sequence=1, revision=0, inventory=inventory)
    return up_topic(device_id, Up.HELLO), encode(hello)


def _publish(client: PahoBroker, topic: str, payload: bytes) -> None:
    while not client.publish(topic, payload):
        time.sleep(0.001)  # paho's own bound of what is underway


def publish(port: int, kind: Up) -> None:
    of_device = _reports if kind is Up.REPORTED else _batches
    streams = [of_device(device) for device in range(DEVICES[kind])]
    messages = [one for turn in zip(*streams, strict=True) for one in turn]
    listener = _Counting(lambda _topic, _payload: False)
    client = PahoBroker(BrokerAddress(HOST, port), "bench-publisher", ())
    client.start(listener)
    listener.ready.wait(TIMEOUT_S)
    for device in range(DEVICES[kind]):
        _publish(client, *_hello(device))
    print(flush=True)
    sys.stdin.readline()
    for topic, payload in messages:
        _publish(client, topic, payload)
    sys.stdin.read()  # the measuring side closes it when it has seen everything
    client.stop()


if __name__ == "__main__":
    publish(int(sys.argv[1]), Up(sys.argv[2]))
