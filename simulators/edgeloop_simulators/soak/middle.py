"""What a soaked agent talks to: an embedded broker, an artifact server, and a controller that
offers what it is told to and acknowledges all telemetry. Real MQTT, real HTTP.

Invariants: telemetry is counted once, by the cursor; what was heard is kept as numbers and the last
report only, so that nothing here grows with the length of a soak.
"""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgeloop_controller.broker import EmbeddedBroker
from edgeloop_controller.config import BrokerConfig
from edgeloop_protocol.messages import (
    Ack,
    Desired,
    Hello,
    Offer,
    Probation,
    Reported,
    SlotDesired,
    SlotReported,
    TelemetryBatch,
    WindowSummary,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import EVERY_DEVICE_UP, Down, Up, down_topic, parse_up_topic
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.fleet import HOST, free_ports

DEVICE: Final = "soaked"
PROBATION: Final = Probation(min_s=0.1, min_examples=5, max_s=60.0, max_latency_ratio=1e4)
"""Short; and how fast a version is, on a machine that may be busy, is not what is asked here."""
POLL_S: Final = 0.5
"""How soon a wait looks again whether the agent still lives."""


class Artifacts:
    """An HTTP server of `/v1/artifacts/{digest}`."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = contents.get(self.path.rpartition("/")[2])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Middle:
    """Use `wait` for what the agent shall have done, and `want` for what it shall do."""

    def __init__(self, contents: Mapping[str, bytes], directory: Path) -> None:
        (self.broker_port,) = free_ports(1)
        self._artifacts = Artifacts(contents)
        self.url = self._artifacts.url
        self._broker = EmbeddedBroker(BrokerConfig(embedded=True, port=self.broker_port), directory)
        self._broker.start()
        self._changed = threading.Condition()
        self._desired = Desired(revision=0)
        self.slots: dict[str, SlotReported] = {}
        self.answered: Counter[str] = Counter()
        """Inferences by slot."""
        self.windows: Counter[tuple[str, str]] = Counter()
        """By slot and version; those in which something was answered."""
        self.lost = self._through = 0
        self._link = PahoBroker(
            BrokerAddress(HOST, self.broker_port), "controller", (EVERY_DEVICE_UP,)
        )
        self._link.start(self)

    def close(self) -> None:
        self._link.stop()
        self._broker.stop()
        self._artifacts.close()

    def want(self, offers: Mapping[str, Offer]) -> None:
        with self._changed:
            slots = tuple(
                SlotDesired(slot=slot, offer=offer, probation=PROBATION)
                for slot, offer in offers.items()
            )
            self._desired = Desired(revision=self._desired.revision + 1, slots=slots)
            self._say(Down.DESIRED, encode(self._desired))

    def wait(
        self, condition: Callable[[], bool], check: Callable[[], None], timeout_s: float, what: str
    ) -> None:
        """Raises SimulatorError after `timeout_s`, and what `check` raises."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._changed.wait_for(condition, POLL_S):
                check()
                if time.monotonic() > deadline:
                    raise SimulatorError(f"not so after {timeout_s:g} s: {what}: {self.slots}")

    def connected(self) -> None:
        """The agent speaks first."""

    def disconnected(self, reason: str) -> None:
        """It says all again."""

    def message(self, topic: str, payload: bytes) -> None:
        _, kind = parse_up_topic(topic)
        with self._changed:
            if kind is Up.TELEMETRY:
                self._take(decode(TelemetryBatch, payload))
            elif kind is Up.HELLO:
                self._look(decode(Hello, payload))
            elif kind is Up.REPORTED:
                self._look(decode(Reported, payload))
            self._changed.notify_all()

    def _look(self, said: Hello | Reported) -> None:
        self.slots = {slot.slot: slot for slot in said.slots}
        if said.revision < self._desired.revision:
            self._say(Down.DESIRED, encode(self._desired))

    def _take(self, batch: TelemetryBatch) -> None:
        """Of one epoch: an agent that is started again has failed its soak."""
        self.lost += max(0, batch.base - self._through - 1)
        for record in batch.records:
            body = record.body
            if record.sequence > self._through and isinstance(body, WindowSummary) and body.count:
                self.answered[body.slot] += body.count
                self.windows[body.slot, body.version.version] += 1
        self._through = max(self._through, batch.records[-1].sequence)
        self._say(Down.ACK, encode(Ack(epoch=batch.epoch, through=self._through)))

    def _say(self, kind: Down, payload: bytes) -> None:
        self._link.publish(down_topic(DEVICE, kind), payload)
