"""The waits between the reads of a capped download, which anyone may cut short.

Invariants: only the download thread waits, and it holds nothing while it does; whoever wants it to
look up (a stop, a withdrawn offer, another cap) calls `wake`, and it does at once; what is not read
stays with its sender: the socket's buffer is small where the cap is.
"""

import threading
from collections.abc import Callable
from typing import Final

from edgeloop_agent.core.rate_cap import RateCap
from edgeloop_protocol.clock import Clock, SystemClock
from edgeloop_protocol.limits import KIB

ROUND_TRIP_S: Final = 0.5
"""Of the slowest links that a small buffer may not slow down further."""
RECEIVE_BUFFER_BYTES: Final = 128 * KIB
"""Of a capped socket, where that much in a round trip is no second cap; above, the kernel lets the
buffer grow with what is read, up to a bound of its own. Smaller than two segments of loopback (64
KiB each) a buffer stalls the link: the window opens only for a whole segment."""


class PacedReads:
    """Of one download thread. `wait` passes seconds, or fewer when woken; None: real ones."""

    def __init__(
        self,
        bytes_per_s_max: float = 0,
        clock: Clock | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._cap = RateCap(bytes_per_s_max, self._clock.monotonic())
        self._asked_bytes_per_s = bytes_per_s_max
        self._woken = threading.Event()
        self._wait = wait or self._woken.wait

    def use(self, bytes_per_s_max: float) -> None:
        """Another cap, at once; from any thread."""
        self._asked_bytes_per_s = bytes_per_s_max
        self.wake()

    def wake(self) -> None:
        """From any thread: whoever waits looks up."""
        self._woken.set()

    def next_read_bytes(self) -> int:
        """How many bytes may be read now; 0: it waited, look up and ask again."""
        now, asked = self._clock.monotonic(), self._asked_bytes_per_s
        if asked != self._cap.bytes_per_s:
            self._cap.use(asked, now)
        wait_s = self._cap.wait_s(now)
        if not wait_s:
            return self._cap.granted_bytes(now)
        self._wait(wait_s)
        # What was asked before this is seen by the caller, who looks up now.
        self._woken.clear()
        return 0

    def took(self, size_bytes: int) -> None:
        self._cap.took(size_bytes)

    def receive_buffer_bytes(self) -> int | None:
        """Of the socket to read from; None: leave it to the kernel."""
        asked = self._asked_bytes_per_s
        return RECEIVE_BUFFER_BYTES if 0 < asked * ROUND_TRIP_S <= RECEIVE_BUFFER_BYTES else None
