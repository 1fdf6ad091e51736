"""The newest opset and IR version that the installed onnxruntime loads, found out by asking it.

The release notes give these numbers too, but an agent outlives the table that it was shipped with.
"""

from collections.abc import Callable
from typing import Final

import onnxruntime

OPSET_BOUND: Final = 256
IR_VERSION_BOUND: Final = 64
_OLD_OPSET: Final = 7
_OLD_IR_VERSION: Final = 4


def max_opset() -> int:
    return newest(lambda n: loads(n, _OLD_IR_VERSION), _OLD_OPSET, OPSET_BOUND)


def max_ir_version() -> int:
    return newest(lambda n: loads(_OLD_OPSET, n), _OLD_IR_VERSION, IR_VERSION_BOUND)


def newest(works: Callable[[int], bool], known: int, bound: int) -> int:
    """The largest number in [known, bound) that works, by bisection; `known` is taken to work."""
    low, high = known, bound
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def loads(opset: int, ir_version: int) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            tiny_model(opset, ir_version), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # the runtime raises its own unrelated types
        return False
    return True


def tiny_model(opset: int, ir_version: int) -> bytes:
    """y = Relu(x) for one float, as ONNX protobuf bytes (onnx.proto: field numbers in comments)."""
    node = _bytes(1, b"x") + _bytes(2, b"y") + _bytes(4, b"Relu")  # input, output, op_type
    graph = _bytes(1, node) + _bytes(2, b"g")  # node, name
    graph += _bytes(11, _value(b"x")) + _bytes(12, _value(b"y"))  # input, output
    opset_id = _number(2, opset)  # version
    return _number(1, ir_version) + _bytes(7, graph) + _bytes(8, opset_id)


def _value(name: bytes) -> bytes:
    shape = _bytes(1, _number(1, 1))  # dim { dim_value: 1 }
    tensor = _number(1, 1) + _bytes(2, shape)  # elem_type FLOAT, shape
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))  # name, type { tensor_type }


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
