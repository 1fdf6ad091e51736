"""What outlives a runner of a slot: its listening socket or pipe, and a channel to its successor.

Invariants: the supervisor opens and holds these and never reads from them, so that nothing that
arrives between two runners is refused or lost; what cannot be opened now is tried again at each
start, and the runner says so meanwhile.
"""

import contextlib
import logging
import os
import socket
import stat
import sys
from typing import Final

from edgeloop_agent.config import LinesSource, OpenInferenceSource, Source
from edgeloop_agent.runner_protocol import Endpoint

logger = logging.getLogger(__name__)

BACKLOG: Final = 1024
SOCKET_MODE: Final = 0o660
HAND_OVER_BUFFER_BYTES: Final = 1024 * 1024


class SlotEndpoint:
    """Of one slot, for as long as the agent runs."""

    def __init__(self, source: OpenInferenceSource | LinesSource) -> None:
        self._source = source
        self._feed: int | None = None
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._hand_over, self._take_over = pair
        self._hand_over.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HAND_OVER_BUFFER_BYTES)

    def descriptors(self) -> tuple[int, ...]:
        """For the runner to inherit; opens what is not open yet."""
        if self._feed is None:
            try:
                self._feed = _opened(self._source)
            except OSError as error:
                logger.warning("cannot open %s: %s", _words(self._source), error)
        pair = (self._hand_over.fileno(), self._take_over.fileno())
        return pair if self._feed is None else (*pair, self._feed)

    def line(self) -> Endpoint:
        return Endpoint(
            feed=self._feed,
            hand_over=self._hand_over.fileno(),
            take_over=self._take_over.fileno(),
        )


def endpoint_of(source: Source) -> SlotEndpoint | None:
    """None: the source needs nothing that outlives its runner."""
    if isinstance(source, OpenInferenceSource | LinesSource):
        return SlotEndpoint(source)
    return None


def listen(source: OpenInferenceSource) -> socket.socket:
    """Raises OSError. A Unix socket that nobody listens on any more makes way."""
    if source.path is None:
        family = socket.AF_INET6 if source.host == "::1" else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address: tuple[str, int | None] | str = (source.host, source.port)
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(source.path.stat().st_mode):
                source.path.unlink()
        address = str(source.path)
    try:
        listener.bind(address)
        if source.path is not None:
            source.path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _opened(source: OpenInferenceSource | LinesSource) -> int:
    if isinstance(source, OpenInferenceSource):
        return listen(source).detach()
    if source.path is None:
        return sys.stdin.fileno()
    if not source.path.exists():
        os.mkfifo(source.path, SOCKET_MODE)
    return os.open(source.path, os.O_RDWR | os.O_NONBLOCK)  # never at its end: we may write, too


def _words(source: OpenInferenceSource | LinesSource) -> str:
    if source.path is not None:
        return str(source.path)
    return f"port {source.port}" if isinstance(source, OpenInferenceSource) else "standard input"
