"""When to send the next telemetry batch: one in flight, again after a timeout, all on reconnect.

Invariants: at most one batch is in flight; only an acknowledgement ends its flight; the wait for
one grows by doubling up to ACK_TIMEOUT_S_MAX, so that a slow controller is not stormed.
"""

from typing import Final

from edgeloop_protocol.limits import ACK_TIMEOUT_S, BACKOFF_S_MAX, BACKOFF_S_MIN

ACK_TIMEOUT_S_MAX: Final = BACKOFF_S_MAX


class Drain:
    def __init__(self) -> None:
        self._connected = False
        self._send_at: float | None = None
        self._in_flight: tuple[str, int] | None = None
        self._unanswered = 0

    def connected(self, now: float) -> None:
        self._connected, self._in_flight, self._unanswered, self._send_at = True, None, 0, now

    def disconnected(self) -> None:
        self._connected, self._in_flight, self._send_at = False, None, None

    def filled(self, now: float) -> None:
        """Something is in the outbox."""
        if self._connected and self._in_flight is None and self._send_at is None:
            self._send_at = now

    def is_due(self, now: float) -> bool:
        return self._send_at is not None and now >= self._send_at

    def next_deadline(self) -> float | None:
        return self._send_at

    def emptied(self) -> None:
        """There was nothing to send."""
        self._in_flight, self._send_at = None, None

    def sent(self, epoch: str, through: int, now: float) -> None:
        self._in_flight = (epoch, through)
        timeout_s: float = ACK_TIMEOUT_S * 2 ** min(self._unanswered, 10)
        self._send_at = now + min(timeout_s, ACK_TIMEOUT_S_MAX)
        self._unanswered += 1

    def refused(self, now: float) -> None:
        """The broker's client did not take it: a moment later again."""
        self._in_flight = None
        self._send_at = now + BACKOFF_S_MIN

    def acknowledged(self, epoch: str, through: int, now: float) -> None:
        """An acknowledgement of something else (late, doubled) does not end the flight."""
        if self._in_flight is None:
            return
        flying_epoch, flying_through = self._in_flight
        if epoch == flying_epoch and through >= flying_through:
            self._in_flight, self._unanswered, self._send_at = None, 0, now
