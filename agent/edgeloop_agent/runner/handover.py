"""What a runner leaves to the one after it: open connections, and bytes that it did not use.

Invariants: one message a connection, with its descriptor; bytes travel in a memory file, so that no
message is larger than the channel takes; what cannot be handed over is closed and counted.
"""

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Final

MESSAGE_MAX_BYTES: Final = 64
_DESCRIPTORS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Left:
    """`connection` None: only bytes. `unsent`: answers that its peer has not taken yet."""

    connection: socket.socket | None
    unread: bytes = b""
    unsent: bytes = b""


class HandOver:
    def __init__(self, hand_over: int, take_over: int) -> None:
        self._out = socket.socket(fileno=hand_over)
        self._in = socket.socket(fileno=take_over)
        self._out.setblocking(False)
        self._in.setblocking(False)
        self.lost = 0

    def give(self, left: Left) -> None:
        """And close it here."""
        descriptors = []
        memory = os.memfd_create("edgeloop-left")
        with os.fdopen(memory, "wb", buffering=0) as file:
            file.write(left.unread + left.unsent)
            descriptors.append(memory)
            if left.connection is not None:
                descriptors.append(left.connection.fileno())
            try:
                socket.send_fds(self._out, [b"%d" % len(left.unread)], descriptors)
            except OSError:
                self.lost += 1
        if left.connection is not None:
            left.connection.close()

    def take(self) -> list[Left]:
        """Everything that was left."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                message, descriptors, _, _ = socket.recv_fds(
                    self._in, MESSAGE_MAX_BYTES, _DESCRIPTORS_MAX
                )
                if not message:
                    break
                found.append(_left(int(message), descriptors))
        return found


def _left(unread_bytes: int, descriptors: list[int]) -> Left:
    memory, *connection = descriptors
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        content = file.read()
    opened = socket.socket(fileno=connection[0]) if connection else None
    if opened is not None:
        opened.setblocking(False)
    return Left(opened, content[:unread_bytes], content[unread_bytes:])
