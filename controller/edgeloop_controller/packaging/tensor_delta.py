"""Makes patches of the format `tensors.1` (edgeloop_protocol.tensor_patch, ADR 0015).

Invariants: pure, and the same for the same bytes; the result is made of pieces that follow each
other: tensors that the base has too, by name or by their order, and what lies between them; of the
ways to code a piece the smallest is taken.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from edgeloop_controller.packaging.onnx_tensors import Tensor, find_tensors
from edgeloop_protocol.tensor_patch import (
    FRAME,
    GAP_MAX,
    HEADER,
    MAGIC,
    SEGMENT,
    SEGMENT_MAX_BYTES,
    SPARSE_MAX_BYTES,
    SPARSE_MAX_ELEMENTS,
    Kind,
    zigzag,
)

LEVEL: Final = 19
SPARSE_SHARE_MAX: Final = 0.6
"""Of elements that change: above it, PLANES are smaller."""

PLANES_SHARE_MIN: Final = 0.1
"""Below it, SPARSE is smaller, and zstd takes its longest over what hardly changes."""

ALIKE_MIN_BYTES: Final = 4096
"""Smaller pieces that are no tensors are coded as text only."""

Unsigned = NDArray[Any]


class _Piece(NamedTuple):
    """Of the result, and of the base what it is coded against."""

    start: int
    size: int
    base_start: int
    base_size: int
    widths: tuple[int, ...]
    """Of the elements that it may be made of; none: coded as text."""


class _Segment(NamedTuple):
    kind: Kind
    width: int
    size: int
    base_start: int
    extra: int
    frames: tuple[bytes, ...]

    def encoded(self) -> bytes:
        head = SEGMENT.pack(self.kind, self.width, self.size, self.base_start, self.extra)
        return head + b"".join(FRAME.pack(len(frame)) + frame for frame in self.frames)


def make_tensor_patch(base: bytes, new: bytes) -> bytes:
    segments: list[_Segment] = []
    for piece in _pieces(base, new):
        for segment in _segments(base, new, piece):
            last = segments[-1] if segments else None
            if last is not None and _go_on(last, segment):
                segments[-1] = last._replace(size=last.size + segment.size)
            else:
                segments.append(segment)
    header = HEADER.pack(MAGIC, len(base), len(new), len(segments))
    return header + b"".join(segment.encoded() for segment in segments)


def _go_on(last: _Segment, segment: _Segment) -> bool:
    both_copy = last.kind is segment.kind is Kind.COPY
    return both_copy and last.base_start + last.size == segment.base_start


def _pieces(base: bytes, new: bytes) -> Iterator[_Piece]:
    at = base_at = 0
    for tensor, old in _pairs(find_tensors(base), find_tensors(new)):
        if old.start >= base_at:
            yield from _between(at, tensor.start, base_at, old.start)
        else:  # the base has them in another order
            yield from _between(at, tensor.start, base_at, base_at)
        yield _Piece(tensor.start, tensor.size, old.start, old.size, (tensor.width,))
        at, base_at = tensor.start + tensor.size, old.start + old.size
    yield from _between(at, len(new), base_at, len(base))


def _between(start: int, end: int, base_start: int, base_end: int) -> Iterator[_Piece]:
    size, base_size = end - start, base_end - base_start
    if size:
        # Equal sizes: as of a file whose format is not known, with other numbers in it.
        alike = size == base_size and size >= ALIKE_MIN_BYTES
        yield _Piece(start, size, base_start, base_size, (1, 4) if alike else ())


def _pairs(olds: list[Tensor], news: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """(new, base's) of the same width and size: by name, else the next of its kind."""
    by_name = {(old.name, old.width, old.size): old for old in reversed(olds)}
    names = {(tensor.name, tensor.width, tensor.size) for tensor in news}
    spare: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
    for old in reversed(olds):
        if (old.name, old.width, old.size) not in names:
            spare[old.width, old.size].append(old)
    for tensor in news:
        old_one = by_name.get((tensor.name, tensor.width, tensor.size))
        if old_one is None and spare[tensor.width, tensor.size]:
            old_one = spare[tensor.width, tensor.size].pop()
        if old_one is not None:
            yield tensor, old_one


def _segments(base: bytes, new: bytes, piece: _Piece) -> Iterator[_Segment]:
    size, end = piece.size, piece.start + piece.size
    old = base[piece.base_start : piece.base_start + min(size, piece.base_size)]
    if new[piece.start : end] == old:
        yield _Segment(Kind.COPY, 1, size, piece.base_start, 0, ())
        return
    for first in range(0, size, SPARSE_MAX_BYTES):
        part = piece._replace(
            start=piece.start + first,
            size=min(SPARSE_MAX_BYTES, size - first),
            base_start=piece.base_start + first if piece.widths else piece.base_start,
        )
        ways = [_as_elements(base, new, part, width) for width in piece.widths]
        if not piece.widths or len(ways) > 1:
            ways.append(list(_as_text(base, new, part)))
        yield from min(ways, key=_length)


def _length(segments: list[_Segment]) -> int:
    return sum(len(segment.encoded()) for segment in segments)


def _as_elements(base: bytes, new: bytes, part: _Piece, width: int) -> list[_Segment]:
    """`part` has at most SPARSE_MAX_BYTES."""
    size = part.size - part.size % width
    olds = np.frombuffer(base, f"<u{width}", size // width, part.base_start)
    news = np.frombuffer(new, f"<u{width}", size // width, part.start)
    coded = zigzag(news - olds)
    share = np.count_nonzero(coded) / max(1, len(coded))
    ways = []
    if share <= SPARSE_SHARE_MAX:
        ways.append(_sparse(coded, part.base_start))
    if share >= PLANES_SHARE_MIN:
        ways.append(_in_planes(coded, part.base_start))
    segments = min(ways, key=_length)
    if size < part.size:
        rest = part._replace(start=part.start + size, size=part.size - size, base_size=0)
        segments = segments + list(_as_text(base, new, rest))
    return segments


def _in_planes(coded: Unsigned, base_start: int) -> list[_Segment]:
    width = coded.dtype.itemsize
    step = SEGMENT_MAX_BYTES // width
    return [
        _Segment(
            Kind.PLANES,
            width,
            len(part) * width,
            base_start + first * width,
            0,
            _planes(part),
        )
        for first in range(0, len(coded), step)
        for part in (coded[first : first + step],)
    ]


def _sparse(coded: Unsigned, base_start: int) -> list[_Segment]:
    """In as many segments as the number of changes asks for; what does not change is copied."""
    width = coded.dtype.itemsize
    places = _with_steps(np.flatnonzero(coded))
    segments = []
    at = 0
    for first in range(0, len(places), SPARSE_MAX_ELEMENTS):
        some = places[first : first + SPARSE_MAX_ELEMENTS]
        is_last = first + SPARSE_MAX_ELEMENTS >= len(places)
        end = len(coded) if is_last else int(some[-1]) + 1
        gaps = np.diff(some, prepend=at - 1) - 1
        frames = (_compressed(gaps.astype(np.uint8)), *_planes(coded[some]))
        segments.append(
            _Segment(
                Kind.SPARSE,
                width,
                (end - at) * width,
                base_start + at * width,
                len(some),
                frames,
            )
        )
        at = end
    if not segments:
        segments.append(_Segment(Kind.COPY, 1, len(coded) * width, base_start, 0, ()))
    return segments


def _with_steps(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """With places between, where nothing changes, so that no gap is above GAP_MAX."""
    gaps = np.diff(places, prepend=-1) - 1
    steps = gaps // (GAP_MAX + 1)
    if not steps.any():
        return places
    befores = np.concatenate(([-1], places[:-1]))
    number = np.repeat(np.arange(len(places)), steps)
    nth = np.arange(len(number)) - np.repeat(np.cumsum(steps) - steps, steps) + 1
    return np.sort(np.concatenate((places, befores[number] + nth * (GAP_MAX + 1))))


def _planes(coded: Unsigned) -> tuple[bytes, ...]:
    width = coded.dtype.itemsize
    planes = np.ascontiguousarray(coded).view(np.uint8).reshape(len(coded), width)
    return tuple(_compressed(np.ascontiguousarray(planes[:, n])) for n in range(width))


def _as_text(base: bytes, new: bytes, part: _Piece) -> Iterator[_Segment]:
    end = part.start + part.size
    for start in range(part.start, end, SEGMENT_MAX_BYTES):
        content = new[start : min(start + SEGMENT_MAX_BYTES, end)]
        # Of a longer piece of the base: what stands where this stands in its own piece.
        last_start = part.base_size - SEGMENT_MAX_BYTES
        skipped = max(0, min(start - part.start, last_start))
        prefix_start = part.base_start + skipped
        prefix = base[prefix_start : prefix_start + min(SEGMENT_MAX_BYTES, part.base_size)]
        plain = _compressed(content)
        against = _compressed(content, prefix) if prefix else plain
        if len(against) < len(plain):
            yield _Segment(Kind.LITERAL, 1, len(content), prefix_start, len(prefix), (against,))
        else:
            yield _Segment(Kind.LITERAL, 1, len(content), 0, 0, (plain,))


def _compressed(content: Any, prefix: bytes = b"") -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(content),
        dict_size=len(prefix),
        format=zstandard.FORMAT_ZSTD1,
        write_content_size=1,
        write_checksum=0,
        write_dict_id=0,
        threads=0,
    )
    dictionary = (
        zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
    return compressor.compress(content)
