"""The bounded queue between the broker's thread and the one thread that writes.

Invariants: `put` never blocks; what does not fit is refused and counted; messages leave in the
order in which they came. Telemetry that was refused is not acknowledged, so the device sends it
again; a hello or a reported state is said once, and the device must be asked for it.
"""

import threading
from collections import deque
from typing import NamedTuple


class Inbound(NamedTuple):
    topic: str
    payload: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.topic) + len(self.payload)


class Inbox:
    """Holds at most `max_messages` and `max_bytes`."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[Inbound] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self.refused = 0

    def put(self, topic: str, payload: bytes) -> bool:
        """False when full or closed."""
        message = Inbound(topic, payload)
        with self._changed:
            full = (
                len(self._messages) >= self._max_messages
                or self._bytes + message.size_bytes > self._max_bytes
            )
            if full or self._closed:
                self.refused += 1
                return False
            self._messages.append(message)
            self._bytes += message.size_bytes
            self._changed.notify()
            return True

    def wait(self) -> bool:
        """Until there is something to take; False: closed, and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed)
            return bool(self._messages)

    def take(self, max_messages: int) -> list[Inbound]:
        """Up to `max_messages` of what is there."""
        with self._changed:
            taken = [
                self._messages.popleft() for _ in range(min(max_messages, len(self._messages)))
            ]
            self._bytes -= sum(message.size_bytes for message in taken)
            return taken

    def close(self) -> None:
        """Refuse what comes from now on; what is held can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._messages)
