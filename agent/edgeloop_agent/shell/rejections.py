"""What comes in malformed: counted, each time; said, at most once a minute (EL-MSG-4)."""

import logging
from typing import Final

from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.clock import Clock

logger = logging.getLogger(__name__)

REJECTED_EVENT_INTERVAL_S: Final = 60.0


class Rejections:
    __slots__ = ("_clock", "_event_at", "_telemetry", "count")

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._event_at = float("-inf")
        self.count = 0

    def reject(self, why: str) -> None:
        self.count += 1
        now = self._clock.monotonic()
        if now - self._event_at >= REJECTED_EVENT_INTERVAL_S:
            self._event_at = now
            logger.warning("a message was dropped: %s", why)
            self._telemetry.event("message_rejected", detail=why[:200])
