"""The controller's ends of the broker: the listener that fills the inbox, and the embedded broker.

Invariants: the listener only counts and enqueues, so the broker's thread never waits for the
database; whenever a device may have spoken unheard (we were away, the inbox was full) `unheard` is
called, since telemetry is sent again until it is acknowledged but a reported state is not; the
embedded broker is a child process that ends when this process does, however it ends (it reads a
pipe that closes), is started again when it ends by itself, and listens on loopback only.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from iotcore.broker import Broker as IotcoreBroker

from edgeloop_controller.config import BrokerConfig
from edgeloop_controller.errors import StartError
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.inbox import Inbox
from edgeloop_protocol.limits import KIB, MIB, PAYLOAD_MAX_BYTES
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.tls_config import TlsConfig
from edgeloop_protocol.topics import EVERY_DEVICE_UP

logger = logging.getLogger(__name__)

# Room for the topic and for messages that we refuse ourselves: a broker that closes the
# connection over an oversize message would say less about it than our own refusal.
EMBEDDED_PAYLOAD_MAX_BYTES: Final = PAYLOAD_MAX_BYTES + 64 * KIB
EMBEDDED_CONNECTIONS_MAX: Final = 1100
# Segments bound rumqttd's log, which otherwise grows for ever: 16 of 1 MiB for each filter.
EMBEDDED_SEGMENT_BYTES: Final = MIB
EMBEDDED_SEGMENTS_MAX: Final = 16


class InboxListener:
    """What the broker's thread calls; `unheard` must return at once."""

    def __init__(self, inbox: Inbox, unheard: Callable[[], None]) -> None:
        self._inbox = inbox
        self._unheard = unheard
        self._connected = threading.Event()
        self.reason = "not connected yet"

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    def connected(self) -> None:
        self._connected.set()
        self.reason = ""
        self._unheard()

    def disconnected(self, reason: str) -> None:
        self._connected.clear()
        self.reason = reason

    def message(self, topic: str, payload: bytes) -> None:
        refused_before = self._inbox.refused
        if self._inbox.put(topic, payload):
            return
        self._unheard()
        if refused_before % 1000 == 0:
            logger.warning("inbox full: messages are dropped; devices will be asked again")


def address_of(config: BrokerConfig, own: TlsConfig | None = None) -> BrokerAddress:
    """`own`: by the controller's own certificate, where none is configured."""
    tls = config.tls or own
    return BrokerAddress(config.host, config.port, config.username, config.password, tls)


def connect(config: BrokerConfig, own: TlsConfig | None = None) -> PahoBroker:
    return PahoBroker(address_of(config, own), config.client_id, (EVERY_DEVICE_UP,))


class EmbeddedBroker:
    """iotcore (rumqttd) in a child process, for up to 1,000 devices on this machine."""

    def __init__(self, config: BrokerConfig, directory: Path) -> None:
        file = directory / "broker.toml"
        file.write_text(_RUMQTTD_TOML.format(port=config.port), encoding="utf-8")
        self._address = f"127.0.0.1:{config.port}"
        self._broker = IotcoreBroker(config_path=str(file))
        self._failures = FailureLog(logger)
        self.restarts = 0

    def start(self) -> None:
        """Raises StartError when the port is in use."""
        try:
            self._broker.start()
        except (OSError, RuntimeError) as error:
            raise StartError(
                f"the embedded broker cannot listen on {self._address}: {error}",
                hint="stop what uses the port, or set [broker] port to a free one",
            ) from error

    def is_running(self) -> bool:
        return bool(self._broker.is_running)

    def keep_running(self) -> None:
        """Start it again if it ended; when that fails, the next call tries again."""
        if self.is_running():
            return
        self._broker.stop()  # what is left of it
        try:
            self.start()
        except StartError:
            self._failures.failed("starting the embedded broker again")
            return
        self._failures.worked("starting the embedded broker again")
        self.restarts += 1
        logger.error("the embedded broker on %s had ended and was started again", self._address)

    def stop(self) -> None:
        self._broker.stop()


_RUMQTTD_TOML: Final = f"""\
# Written by `edgeloop serve` at every start; change [broker] of the controller's configuration.
id = 0

[router]
id = 0
max_connections = {EMBEDDED_CONNECTIONS_MAX}
max_outgoing_packet_count = 200
max_segment_size = {EMBEDDED_SEGMENT_BYTES}
max_segment_count = {EMBEDDED_SEGMENTS_MAX}

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{{port}}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = {EMBEDDED_PAYLOAD_MAX_BYTES}
max_inflight_count = 100
dynamic_filters = true
"""
