"""Examples from a local MQTT topic, and answers to one: of a broker beside the device.

Invariants: driven by the runner's loop, without a thread; a broker that is away is connected to
again, for ever; answers that it does not take are dropped and counted.
"""

import json
import time
from collections import deque
from typing import Any, Final

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgeloop_agent.config import MqttTopic
from edgeloop_agent.runner.sources import READ_EXAMPLES_MAX, Example, parse_line
from edgeloop_protocol.backoff import backoff_s

CONNECT_TIMEOUT_S: Final = 1.0
RECONNECT_S_MAX: Final = 5.0
HELD_MAX: Final = 4096
"""Messages that came and were not read yet; beyond it the oldest go."""

UNSENT_MAX: Final = 1000
KEEP_ALIVE_S: Final = 30
TURN_S: Final = 1.0
_CLOSE_S: Final = 1.0


class _Client:
    """A paho client whose socket others select on."""

    def __init__(self, config: MqttTopic) -> None:
        self._config = config
        self._failures = 0
        self._connect_at = self._turn_at = 0.0
        self._jitter = np.random.default_rng()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.connect_timeout = CONNECT_TIMEOUT_S
        self.client.max_queued_messages_set(UNSENT_MAX)
        if config.username is not None:
            self.client.username_pw_set(config.username, config.password)

    def fileno(self) -> int | None:
        connection = self.client.socket()
        return None if connection is None else int(connection.fileno())

    def next_due(self) -> float:
        return self._connect_at if self.fileno() is None else self._turn_at

    @property
    def wants_to_write(self) -> bool:
        return self.fileno() is not None and bool(self.client.want_write())

    def flush(self) -> None:
        self.client.loop_write()

    def turn(self, now: float) -> None:
        """Read, write what waits, and keep the connection."""
        if self.fileno() is None:
            if now >= self._connect_at:
                self._connect(now)
            return
        self.client.loop_read()
        while self.wants_to_write and self.client.loop_write() == paho.MQTT_ERR_SUCCESS:
            pass
        self.client.loop_misc()
        self._turn_at = now + TURN_S
        if self.fileno() is None:
            self._retry_later(now)

    def close(self) -> None:
        ends = time.monotonic() + _CLOSE_S
        while self.wants_to_write and time.monotonic() < ends:
            self.client.loop_write()
        self.client.disconnect()

    def _connect(self, now: float) -> None:
        try:
            self.client.connect(self._config.host, self._config.port, KEEP_ALIVE_S)
        except OSError:
            self._retry_later(now)
            return
        connection = self.client.socket()
        if connection is not None:
            connection.setblocking(False)
        self._turn_at = now

    def _retry_later(self, now: float) -> None:
        self._failures += 1
        wait_s = backoff_s(self._failures, self._jitter.random(), 0.1, RECONNECT_S_MAX)
        self._connect_at = now + wait_s

    def succeeded(self) -> None:
        self._failures = 0


class MqttFeed:
    """A message is one example: a JSON line as of a socket, or an array of numbers alone."""

    def __init__(self, config: MqttTopic) -> None:
        self._mqtt = _Client(config)
        self._topic = config.topic
        self._held: deque[bytes] = deque(maxlen=HELD_MAX)
        self._count = 0
        self._mqtt.client.on_connect = self._connected
        self._mqtt.client.on_message = self._came

    def fileno(self) -> int | None:
        return self._mqtt.fileno()

    def next_due(self) -> float | None:
        return 0.0 if self._held else self._mqtt.next_due()

    @property
    def wants_to_write(self) -> bool:
        return self._mqtt.wants_to_write

    def flush(self) -> None:
        self._mqtt.flush()

    def read(self, now: float) -> list[Example]:
        self._mqtt.turn(now)
        count = min(READ_EXAMPLES_MAX, len(self._held))
        return [self._example(self._held.popleft()) for _ in range(count)]

    def close(self) -> None:
        self._mqtt.close()

    def _connected(self, client: Any, *_: Any) -> None:
        self._mqtt.succeeded()
        client.subscribe(self._topic, qos=1)

    def _came(self, _client: Any, _data: Any, message: Any) -> None:
        self._held.append(message.payload)

    def _example(self, payload: bytes) -> Example:
        self._count += 1
        if payload.lstrip().startswith(b"["):
            reference = json.dumps(f"{self._topic[-150:]}#{self._count}").encode()
            payload = b'{"reference":' + reference + b',"values":' + payload + b"}"
        return parse_line(payload)


class MqttSink:
    """Answers as JSON, at most once."""

    def __init__(self, config: MqttTopic) -> None:
        self._mqtt = _Client(config)
        self._topic = config.topic
        self._mqtt.client.on_connect = lambda *_: self._mqtt.succeeded()
        self.dropped = 0
        self._mqtt.turn(time.monotonic())

    def answer(self, answer: dict[str, Any]) -> None:
        self._mqtt.turn(time.monotonic())
        payload = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
        if self._mqtt.fileno() is None or self._mqtt.client.publish(self._topic, payload).rc:
            self.dropped += 1

    def close(self) -> None:
        self._mqtt.close()
