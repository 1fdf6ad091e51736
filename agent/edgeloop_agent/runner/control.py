"""The runner's end of the socketpair: lines in and out, and the end when the supervisor is gone.

Invariant: a supervisor that is gone (end of file, broken pipe) raises SupervisorGone at once, and
nothing of the runner survives it.
"""

import socket
from typing import Final

from edgeloop_agent.lines import LineSplitter
from edgeloop_agent.runner_protocol import ToRunner, decode_to_runner, encode_line
from edgeloop_protocol.documents import BaseModel
from edgeloop_protocol.limits import RUNNER_LINE_MAX_BYTES

READ_CHUNK_BYTES: Final = 64 * 1024


class SupervisorGone(Exception):  # noqa: N818 - not an error: the reason to end
    """The other end of the socketpair closed."""


class Control:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = LineSplitter(RUNNER_LINE_MAX_BYTES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[ToRunner]:
        """What the supervisor said, at least one message; blocks until it speaks or goes."""
        lines: list[bytes | None] = []
        while not lines:
            try:
                chunk = self._socket.recv(READ_CHUNK_BYTES)
            except ConnectionError as error:
                raise SupervisorGone from error
            if not chunk:
                raise SupervisorGone
            lines = self._lines.feed(chunk)
        return [decode_to_runner(line) for line in lines]

    def send(self, message: BaseModel) -> None:
        try:
            self._socket.sendall(encode_line(message))
        except OSError as error:
            raise SupervisorGone from error
