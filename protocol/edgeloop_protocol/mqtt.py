"""The broker port, and its adapter for real brokers (paho-mqtt). Agent and controller share it.

Invariants: `publish` never blocks and never queues for later: what cannot be sent now is refused,
and its owner says it again (the truth is in the outbox and in the database, never in a client's
queue). A payload above PAYLOAD_MAX_BYTES is refused before it reaches paho, because a broker that
closes the connection over it would see it again at every reconnect. Reconnects back off with full
jitter, for ever; a fleet loses its broker all at once, so the first wait after a connection that
stood already reaches LOST_REACH_FAILURES + 1 doublings. Sessions are clean: a broker's memory is a
hint (DESIGN §3).

paho is an extra of this distribution (`edgeloop-protocol[mqtt]`); no other module imports it.
"""

import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edgeloop_protocol.backoff import backoff_s
from edgeloop_protocol.limits import PAYLOAD_MAX_BYTES
from edgeloop_protocol.tls import FreshContext, TlsProblem
from edgeloop_protocol.tls_config import TlsConfig

logger = logging.getLogger(__name__)

KEEPALIVE_S: Final = 30
INFLIGHT_MAX: Final = 100
OUTGOING_MAX: Final = 10_000
"""Messages that wait in a client for the broker's acknowledgement. Enough for what a controller
says at one moment: the acknowledgements of a few batches, or a wave's desired states."""
CONNECT_TIMEOUT_S: Final = 10.0
LOST_REACH_FAILURES: Final = 3
"""A lost connection counts as so many failures in a row before it: its first wait is up to 8 s."""


class BrokerListener(Protocol):
    """What an adapter calls, from a thread of its own; each method must return quickly."""

    def connected(self) -> None: ...

    def disconnected(self, reason: str) -> None: ...

    def message(self, topic: str, payload: bytes) -> None: ...


class Broker(Protocol):
    """A connection to an MQTT broker; tests/contracts/test_broker_contract.py holds adapters."""

    def start(self, listener: BrokerListener) -> None:
        """Return at once; connect, subscribe, and reconnect until `stop`."""

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send at QoS 1. False when not connected, oversize or backed up: say it again later."""

    def stop(self) -> None:
        """Disconnect cleanly (no last will) and return when the adapter's thread has ended."""


@dataclass(frozen=True)
class BrokerAddress:
    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: TlsConfig | None = None
    """None: plain."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class PahoConnection(ABC):
    """What all drivers of a paho client share: MQTT 3.1.1, limits, and when to try again."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        subscriptions: tuple[str, ...],
        will: tuple[str, bytes] | None = None,
        make_client: Callable[..., paho.Client] = paho.Client,
    ) -> None:
        self._address = address
        self._subscriptions = subscriptions
        self._listener: BrokerListener | None = None
        self._failures = 0
        self._attempt = 0
        self._stopping = threading.Event()
        self._random = random.SystemRandom()
        client = make_client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(INFLIGHT_MAX)
        client.max_queued_messages_set(OUTGOING_MAX)
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        self._tls = FreshContext(address.tls) if address.tls is not None else None
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if will is not None:
            client.will_set(will[0], will[1], qos=1)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._client = client

    @property
    def tls_problem(self) -> TlsProblem | None:
        """Why TLS did not come about at the newest try; None: it did, or the failure is another."""
        return self._tls.problem if self._tls is not None else None

    def publish(self, topic: str, payload: bytes) -> bool:
        return self._publish(topic, payload, retain=False)

    def publish_retained(self, topic: str, payload: bytes) -> bool:
        """For programs beside Edgeloop: its own parts rest on nothing that a broker keeps."""
        return self._publish(topic, payload, retain=True)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> bool:
        if len(payload) > PAYLOAD_MAX_BYTES or not self._client.is_connected():
            return False
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        return sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _on_connect(
        self, client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _props: Any
    ) -> None:
        if reason.is_failure:
            self._failed(f"{self._address} refused the connection: {reason}")
            return
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        else:
            self._ready()

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, _mid: int, reasons: Any, _props: Any
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            logger.error("%s refused a subscription: %s", self._address, ", ".join(refused))
            return
        self._ready()

    def _ready(self) -> None:
        self._failures = 0
        self._attempt = LOST_REACH_FAILURES
        logger.info("connected to the broker at %s", self._address)
        if self._listener is not None:
            self._listener.connected()

    def _on_connect_fail(self, _client: paho.Client, _userdata: Any) -> None:
        problem = self.tls_problem
        words = f"no broker answers at {self._address}"
        self._failed(f"broker at {self._address}: {problem}" if problem else words)

    def _on_disconnect(
        self, _client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _props: Any
    ) -> None:
        if self._stopping.is_set():
            return
        self._failed(f"connection to {self._address} ended: {self.tls_problem or reason}")

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._attempt += 1
        delay_s = self._next_delay_s()
        self._try_after(delay_s)
        if self._failures == 1 or self._failures % 10 == 0:
            logger.warning("%s; trying again in %.1f s", reason, delay_s)
        if self._listener is not None:
            self._listener.disconnected(reason)

    def _next_delay_s(self) -> float:
        return backoff_s(self._attempt, self._random.random())

    @abstractmethod
    def _try_after(self, delay_s: float) -> None:
        """Connect again in `delay_s`; replaces what was planned before."""

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if self._listener is not None:
            self._listener.message(message.topic, bytes(message.payload))


class PahoBroker(PahoConnection):
    """A `Broker` with a thread of its own. Construct one per client id."""

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        self._try_after(self._next_delay_s())
        self._client.connect_async(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        self._stopping.set()
        self._client.disconnect()
        self._client.loop_stop()

    def _try_after(self, delay_s: float) -> None:
        # paho doubles a fixed delay without jitter; giving it the next delay each time replaces
        # its schedule by ours. Its parameters are annotated int, but it only waits on them.
        delay: Any = delay_s
        self._client.reconnect_delay_set(delay, delay)
