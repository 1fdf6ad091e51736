"""Where the numbers of an ONNX file stand: a walk over its protobuf, by field numbers.

Invariants: pure; bytes are never copied; what is not an ONNX file has no tensors, whatever it is.
The onnx package cannot tell offsets. Only `raw_data`, and packed floats and doubles, are numbers as
they lie in memory: others are left to whoever treats the rest of the file.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

NESTED_MAX: Final = 32
"""Graphs within nodes within graphs."""

# onnx.proto: field numbers.
_MODEL_GRAPH: Final = 7
_GRAPH_NODE: Final = 1
_GRAPH_INITIALIZER: Final = 5
_NODE_ATTRIBUTE: Final = 5
_ATTRIBUTE_T: Final = 5
_ATTRIBUTE_G: Final = 6
_TENSOR_TYPE: Final = 2
_TENSOR_FLOATS: Final = 4
_TENSOR_NAME: Final = 8
_TENSOR_RAW: Final = 9
_TENSOR_DOUBLES: Final = 10

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5

ELEMENT_BYTES: Final = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType → bytes of one element; all others 1."""


class Tensor(NamedTuple):
    name: str
    width: int
    start: int
    size: int


class _NotProtobufError(Exception):
    pass


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    """Of its content; of a number: the number itself."""
    end: int


def find_tensors(model: bytes) -> list[Tensor]:
    """In the order of the file; empty where it is not an ONNX file."""
    try:
        found = [
            tensor
            for field in _fields(model, 0, len(model))
            if field.number == _MODEL_GRAPH and field.kind == _LENGTH
            for tensor in _of_graph(model, field, 0)
        ]
    except _NotProtobufError:
        return []
    return sorted(found, key=lambda tensor: tensor.start)


def _of_graph(model: bytes, graph: _Field, depth: int) -> Iterator[Tensor]:
    if depth > NESTED_MAX:
        raise _NotProtobufError
    for field in _messages(model, graph):
        if field.number == _GRAPH_INITIALIZER:
            yield from _of_tensor(model, field)
        elif field.number == _GRAPH_NODE:
            for attribute in _messages(model, field):
                if attribute.number == _NODE_ATTRIBUTE:
                    yield from _of_attribute(model, attribute, depth)


def _of_attribute(model: bytes, attribute: _Field, depth: int) -> Iterator[Tensor]:
    for field in _messages(model, attribute):
        if field.number == _ATTRIBUTE_T:
            yield from _of_tensor(model, field)
        elif field.number == _ATTRIBUTE_G:
            yield from _of_graph(model, field, depth + 1)


def _of_tensor(model: bytes, tensor: _Field) -> Iterator[Tensor]:
    data_type, name = 0, ""
    numbers: list[tuple[int | None, _Field]] = []
    for field in _fields(model, tensor.start, tensor.end):
        if field.number == _TENSOR_TYPE and field.kind == _VARINT:
            data_type = field.start
        elif field.kind != _LENGTH:
            continue
        elif field.number == _TENSOR_NAME:
            name = model[field.start : field.end].decode(errors="replace")
        elif field.number == _TENSOR_RAW:
            numbers.append((None, field))
        elif field.number in (_TENSOR_FLOATS, _TENSOR_DOUBLES):
            numbers.append((4 if field.number == _TENSOR_FLOATS else 8, field))
    for known_width, field in numbers:
        width = known_width or ELEMENT_BYTES.get(data_type, 1)
        size = field.end - field.start
        if size and size % width == 0:
            yield Tensor(name, width, field.start, size)


def _messages(model: bytes, outer: _Field) -> Iterator[_Field]:
    return (f for f in _fields(model, outer.start, outer.end) if f.kind == _LENGTH)


def _fields(model: bytes, start: int, end: int) -> Iterator[_Field]:
    at = start
    while at < end:
        tag, at = _varint(model, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(model, at, end)
            yield _Field(number, kind, value, value)
            continue
        if kind == _LENGTH:
            size, at = _varint(model, at, end)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _NotProtobufError
        if at + size > end:
            raise _NotProtobufError
        yield _Field(number, kind, at, at + size)
        at += size


def _varint(model: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = model[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _NotProtobufError
