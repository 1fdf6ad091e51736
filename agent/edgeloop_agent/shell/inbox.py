"""The supervisor's bounded queue, and the broker's listener that fills it.

Invariants: never more than EVENT_QUEUE_MAX items wait; a message that finds it full is dropped and
counted, because the controller says it again; nothing else is ever dropped, it waits.
"""

import queue

from edgeloop_agent.core.events import BrokerConnected, BrokerDisconnected, Event
from edgeloop_agent.ports import DownlinkMessage, RunnerSaid
from edgeloop_protocol.limits import EVENT_QUEUE_MAX

Item = Event | RunnerSaid | DownlinkMessage


class Inbox:
    """`post` for our own threads; the other three for the broker's (BrokerListener)."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(EVENT_QUEUE_MAX)
        self.messages_dropped = 0

    def post(self, item: Item) -> None:
        self._queue.put(item)

    def connected(self) -> None:
        self.post(BrokerConnected())

    def disconnected(self, reason: str) -> None:  # noqa: ARG002 - the adapter logs it
        self.post(BrokerDisconnected())

    def message(self, topic: str, payload: bytes) -> None:
        try:
            self._queue.put_nowait(DownlinkMessage(topic, payload))
        except queue.Full:
            self.messages_dropped += 1

    def take(self, timeout_s: float) -> list[Item]:
        """What is there, in order, after waiting at most `timeout_s` for the first."""
        try:
            items = [
                self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
            ]
            for _ in range(self._queue.qsize()):
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return []
        return items
