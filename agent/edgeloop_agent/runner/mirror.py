"""What the answering runner hands to a challenger: each example with the label it was given.

A frame is a header and the label's name in UTF-8, then the vector as float32, little-endian. Frames
are numbered; a number that is missing was skipped.

Invariants: the writer never waits and holds at most one frame that the socket did not take whole;
what it cannot write is skipped, with no trace but its number; the reader refuses what is no frame.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeloop_protocol.limits import MIB
from edgeloop_protocol.preprocessing import Floats

FRAME_MAX_BYTES: Final = 64 * MIB
READ_CHUNK_BYTES: Final = 256 * 1024
_HEADER: Final = struct.Struct("<IQBH")
"""Bytes that follow, number, whether a sequence begins, bytes of the label."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    number: int
    begins: bool
    label: str
    values: Floats


class MirrorWriter:
    """The answering runner's end; `is_open` until the reader is gone."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._rest = b""
        self._number = 0
        self.is_open = True

    def give(self, values: Floats, label: bytes, begins: bool = False) -> None:
        self._number += 1
        if not self.is_open or (self._rest and not self._send(self._rest)):
            return
        vector = np.ascontiguousarray(values, dtype="<f4").tobytes()
        size = len(label) + len(vector)
        if size <= FRAME_MAX_BYTES:
            self._send(_HEADER.pack(size, self._number, begins, len(label)) + label + vector)

    def close(self) -> None:
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.close()

    def _send(self, frame: bytes) -> bool:
        """Whether all of it was taken; a part of a frame is kept, none of one is forgotten."""
        try:
            sent = self._socket.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        self._rest = frame[sent:]
        return not self._rest


class MirrorReader:
    """The challenger's end; readable by `select`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._held = bytearray()
        self.is_open = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Mirrored]:
        """The frames of one chunk; afterwards `is_open` says whether more may come."""
        try:
            chunk = self._socket.recv(READ_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.is_open = False
        self._held += chunk
        at = 0
        while self.is_open and len(self._held) - at >= _HEADER.size:
            size, number, begins, label_size = _HEADER.unpack_from(self._held, at)
            if size > FRAME_MAX_BYTES or label_size > size or (size - label_size) % 4:
                self.is_open = False
                break
            start = at + _HEADER.size
            if len(self._held) < start + size:
                break
            label = self._held[start : start + label_size].decode("utf-8", "replace")
            vector = bytes(self._held[start + label_size : start + size])
            at = start + size
            yield Mirrored(number, bool(begins), label, np.frombuffer(vector, dtype="<f4"))
        del self._held[:at]
