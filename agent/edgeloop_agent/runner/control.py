"""The runner's end of the socketpair: lines in and out, and the end when the supervisor is gone.

Invariants: a supervisor that is gone (end of file, broken pipe) raises SupervisorGone at once, and
nothing of the runner survives it; descriptors that travel with lines are handed out in their order.
"""

import socket
from collections import deque
from typing import Final

from edgeloop_agent.lines import LineSplitter
from edgeloop_agent.runner_protocol import ToRunner, decode_to_runner, encode_line
from edgeloop_protocol.documents import BaseModel
from edgeloop_protocol.limits import RUNNER_LINE_MAX_BYTES

READ_CHUNK_BYTES: Final = 64 * 1024
DESCRIPTORS_A_READ: Final = 4


class SupervisorGone(Exception):  # noqa: N818 - not an error: the reason to end
    """The other end of the socketpair closed."""


class Control:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = LineSplitter(RUNNER_LINE_MAX_BYTES)
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[ToRunner]:
        """What the supervisor said, at least one message; blocks until it speaks or goes."""
        lines: list[bytes | None] = []
        while not lines:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(
                    self._socket, READ_CHUNK_BYTES, DESCRIPTORS_A_READ
                )
            except ConnectionError as error:
                raise SupervisorGone from error
            if not chunk:
                raise SupervisorGone
            self._descriptors.extend(descriptors)
            lines = self._lines.feed(chunk)
        return [decode_to_runner(line) for line in lines]

    def take_socket(self) -> socket.socket:
        """What came with the MirrorLine that was read first of those not asked about yet."""
        return socket.socket(fileno=self._descriptors.popleft())

    def send(self, message: BaseModel) -> None:
        try:
            self._socket.sendall(encode_line(message))
        except OSError as error:
            raise SupervisorGone from error
