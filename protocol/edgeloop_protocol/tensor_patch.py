"""The patch format `tensors.1`: a model file from an older one, tensor by tensor (ADR 0015).

A patch is a header and segments that give the result from its first byte to its last:

- COPY: bytes of the base;
- LITERAL: bytes, compressed with a piece of the base as dictionary;
- PLANES: the base's elements plus a difference, all of them, as one stream for each byte of the
  element: what changes little leaves its upper bytes empty;
- SPARSE: the same for a few elements: how many lie between them, then their differences.

A difference is that of the bit patterns as unsigned integers, modulo their width, zigzag coded:
for numbers near each other it is small, whatever type they have.

Invariants: whatever the patch's bytes are, decoding ends, takes no more than SEGMENT_MAX_BYTES and
its workspace, never gives more than the size asked for, and raises nothing but PatchError (OSError
where a file fails). Who decodes verifies the result's digest. Needs numpy and zstandard.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from os import SEEK_END
from typing import Any, BinaryIO, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from edgeloop_protocol.errors import PatchError
from edgeloop_protocol.limits import MIB

MAGIC: Final = b"ELTENS\x00\x01"
HEADER: Final = struct.Struct("<8sQQI")
"""Magic with the version, size of the base, size of the result, number of segments."""

SEGMENT: Final = struct.Struct("<BBQQI")
"""Kind, width, bytes of the result, offset in the base; of SPARSE how many elements, of LITERAL
how many bytes of the base are its dictionary."""

FRAME: Final = struct.Struct("<I")
"""Length of the zstd frame that follows."""

SEGMENT_MAX_BYTES: Final = MIB
"""Of the result by one PLANES or LITERAL, and of a dictionary."""

SPARSE_MAX_BYTES: Final = 4 * MIB
SPARSE_MAX_ELEMENTS: Final = 1 << 18
SEGMENTS_MAX: Final = 1 << 20
GAP_MAX: Final = 255
WIDTHS: Final = frozenset({1, 2, 4, 8})
_COPY_CHUNK_BYTES: Final = MIB
_FRAME_OVERHEAD_BYTES: Final = 1024

Unsigned = NDArray[Any]
Write = Callable[[bytes], object]


class Kind(IntEnum):
    COPY = 0
    LITERAL = 1
    PLANES = 2
    SPARSE = 3


def apply_tensor_patch(base: BinaryIO, patch: BinaryIO, write: Write, result_bytes: int) -> None:
    """Give the result to `write` in order. Raises PatchError."""
    magic, base_bytes, promised_bytes, segments = HEADER.unpack(_read(patch, HEADER.size))
    if magic != MAGIC:
        raise PatchError("it does not begin as a tensor patch of this version")
    if promised_bytes != result_bytes or segments > SEGMENTS_MAX:
        raise PatchError(f"it promises {promised_bytes} bytes in {segments} segments")
    if base.seek(0, SEEK_END) != base_bytes:
        raise PatchError(f"it is for a base of {base_bytes} bytes")
    decoder = _Decoder(base, base_bytes, patch, write)
    left = result_bytes
    for _ in range(segments):
        left -= decoder.segment(left)
    if left:
        raise PatchError(f"{left} bytes of the result are missing")


def zigzag(difference: Unsigned) -> Unsigned:
    """Unsigned integers that stand for signed ones, the nearest to 0 first: 0, -1, 1, -2, …"""
    bits = difference.dtype.type(difference.dtype.itemsize * 8 - 1)
    one = difference.dtype.type(1)
    coded: Unsigned = (difference << one) ^ (np.zeros_like(difference) - (difference >> bits))
    return coded


def _unzigzag(coded: Unsigned) -> Unsigned:
    one = coded.dtype.type(1)
    sign = coded & one
    np.subtract(coded.dtype.type(0), sign, out=sign)
    np.right_shift(coded, one, out=coded)
    np.bitwise_xor(coded, sign, out=coded)
    return coded


class _Decoder:
    def __init__(self, base: BinaryIO, base_bytes: int, patch: BinaryIO, write: Write) -> None:
        self._base = base
        self._base_bytes = base_bytes
        self._patch = patch
        self._write = write
        self._zstd = zstandard.ZstdDecompressor()

    def segment(self, left: int) -> int:
        """Its bytes of the result, of which `left` are still to come."""
        kind, width, size, offset, extra = SEGMENT.unpack(_read(self._patch, SEGMENT.size))
        if size == 0 or size > left:
            raise PatchError(f"a segment of {size} bytes where {left} are left")
        if kind == Kind.COPY:
            self._copy(offset, size)
        elif kind == Kind.LITERAL:
            self._literal(offset, size, extra)
        elif kind in (Kind.PLANES, Kind.SPARSE):
            if width not in WIDTHS or size % width:
                raise PatchError(f"{size} bytes of elements of {width}")
            if kind == Kind.PLANES:
                self._planes(width, offset, size)
            else:
                self._sparse(width, offset, size, extra)
        else:
            raise PatchError(f"unknown segment {kind}")
        return int(size)

    def _copy(self, offset: int, size: int) -> None:
        while size > 0:
            chunk = self._from_base(offset, min(size, _COPY_CHUNK_BYTES))
            self._write(chunk)
            offset, size = offset + len(chunk), size - len(chunk)

    def _literal(self, offset: int, size: int, dictionary_bytes: int) -> None:
        _bound(max(size, dictionary_bytes), SEGMENT_MAX_BYTES)
        zstd = self._zstd
        if dictionary_bytes:
            prefix = self._from_base(offset, dictionary_bytes)
            dictionary = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT)
            zstd = zstandard.ZstdDecompressor(dict_data=dictionary)
        self._write(self._frame(size, zstd))

    def _planes(self, width: int, offset: int, size: int) -> None:
        _bound(size, SEGMENT_MAX_BYTES)
        base = self._elements(width, offset, size)
        difference = _unzigzag(self._coded(width, size // width))
        np.add(difference, base, out=difference)
        self._write(difference.tobytes())

    def _sparse(self, width: int, offset: int, size: int, count: int) -> None:
        _bound(size, SPARSE_MAX_BYTES)
        if not 0 < count <= min(SPARSE_MAX_ELEMENTS, size // width):
            raise PatchError(f"{count} of {size // width} elements change")
        elements = self._elements(width, offset, size).copy()
        gaps = np.frombuffer(self._frame(count, self._zstd), np.uint8)
        places = np.cumsum(gaps, dtype=np.uint32) + np.arange(count, dtype=np.uint32)
        if int(places[-1]) >= len(elements):
            raise PatchError("an element beyond the segment changes")
        elements[places] += _unzigzag(self._coded(width, count))
        self._write(elements.tobytes())

    def _coded(self, width: int, count: int) -> Unsigned:
        """`count` elements, least significant bytes first, each plane a frame of its own."""
        coded = np.empty(count, f"<u{width}")
        planes = coded.view(np.uint8).reshape(count, width)
        for number in range(width):
            planes[:, number] = np.frombuffer(self._frame(count, self._zstd), np.uint8)
        return coded

    def _frame(self, expected_bytes: int, zstd: zstandard.ZstdDecompressor) -> bytes:
        (length,) = FRAME.unpack(_read(self._patch, FRAME.size))
        _bound(length, expected_bytes + _FRAME_OVERHEAD_BYTES)
        frame = _read(self._patch, length)
        try:
            # What a frame claims is what is allocated for it: look before it is decompressed.
            if zstandard.frame_content_size(frame) != expected_bytes:
                raise PatchError(f"a frame is not of the {expected_bytes} bytes that it should be")
            return zstd.decompress(frame, max_output_size=expected_bytes, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise PatchError(f"a frame is damaged: {error}") from error

    def _elements(self, width: int, offset: int, size: int) -> Unsigned:
        return np.frombuffer(self._from_base(offset, size), f"<u{width}")

    def _from_base(self, offset: int, size: int) -> bytes:
        if offset + size > self._base_bytes:
            raise PatchError(f"bytes {offset} to {offset + size} of a base of {self._base_bytes}")
        self._base.seek(offset)
        return _read(self._base, size, "the base")


def _bound(size: int, limit: int) -> None:
    if size > limit:
        raise PatchError(f"{size} bytes at once; the limit is {limit}")


def _read(file: BinaryIO, size: int, what: str = "the patch") -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise PatchError(f"{what} ends early")
    return content
