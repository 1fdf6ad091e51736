"""What the supervisor says to the controller at once: presence, hello, reported; and how.

Invariants: hello and reported are numbered in the order said; nothing is queued: what the broker's
client does not take is said again by the next hello, or by the answer to the next desired state.
"""

from collections.abc import Callable

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core.effects import SendHello, SendReported
from edgeloop_protocol.messages import (
    Hello,
    Inventory,
    Presence,
    Reported,
    Response,
    Said,
    Wire,
    encode,
)
from edgeloop_protocol.mqtt import Broker
from edgeloop_protocol.topics import Up, up_topic


class Uplink:
    def __init__(
        self,
        config: AgentConfig,
        broker: Broker,
        epoch: str,
        take_inventory: Callable[[], Inventory],
    ) -> None:
        self._config = config
        self._broker = broker
        self._epoch = epoch
        self._take_inventory = take_inventory
        self._sequence = 0
        self._said: Said | None = None
        self._greeted = 0
        self.sent_bytes = 0

    def presence(self, online: bool) -> None:
        self._say(Up.PRESENCE, Presence(epoch=self._epoch, online=online))

    def hello(self, effect: SendHello) -> None:
        self.presence(online=True)
        self._greeted = self._next_sequence()
        self._say(
            Up.HELLO,
            Hello(
                device_id=self._config.device_id,
                epoch=self._epoch,
                sequence=self._greeted,
                revision=effect.revision,
                labels=self._config.labels,
                inventory=self._take_inventory(),
                slots=effect.slots,
            ),
        )

    def reported(self, effect: SendReported) -> None:
        self._say(
            Up.REPORTED,
            Reported(
                epoch=self._epoch,
                sequence=self._next_sequence(),
                revision=effect.revision,
                slots=effect.slots,
            ),
        )

    @property
    def said(self) -> Said | None:
        """The last hello or reported; None before the first."""
        return self._said

    def has_heard_us(self, said: Said) -> bool:
        """Did whoever heard `said` last hear us in this connection, or at least its hello?"""
        return said.epoch == self._epoch and self._greeted <= said.sequence <= self._sequence

    def response(self, response: Response) -> None:
        self._say(Up.RESPONSE, response)

    def use(self, config: AgentConfig) -> None:
        """Another configuration of the same device: its labels are told by the next hello."""
        self._config = config

    def telemetry(self, payload: bytes) -> bool:
        """Whether the broker's client took it."""
        return self._publish(Up.TELEMETRY, payload)

    def _next_sequence(self) -> int:
        self._sequence += 1
        self._said = Said(epoch=self._epoch, sequence=self._sequence)
        return self._sequence

    def _say(self, kind: Up, message: Wire) -> None:
        self._publish(kind, encode(message))

    def _publish(self, kind: Up, payload: bytes) -> bool:
        sent = self._broker.publish(up_topic(self._config.device_id, kind), payload)
        if sent:
            self.sent_bytes += len(payload)
        return sent
