"""One ONNX file out of a model whose weights are in files beside it.

Invariants: no path is ever opened here: the files are given as bytes, by names that are plain names
in the model's own directory; every range lies in its file and is as long as its tensor; what comes
out is at most as large as was allowed, however often ranges are named.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import onnx

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.introspect import external_tensors, parse_onnx
from edgeloop_controller.packaging.introspect_tflite import is_tflite
from edgeloop_controller.packaging.onnx_tensors import ELEMENT_BYTES

FILES_MAX: Final = 64
_PLAIN_NAME: Final = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,255}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_NEVER_OUTSIDE: Final = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
_HALF_BYTES: Final = (21, 22, 23)
"""UINT4, INT4, FLOAT4E2M1: two share a byte."""
HOW_TO_SAVE: Final = (
    "save it again as one file: onnx.save(model, path, save_as_external_data=False)"
)


def weight_files(model: bytes) -> tuple[str, ...]:
    """The names that the model gives to files beside it, in order; none for a whole file.

    Raises PackagingError: not a model, a name that is a path, too many.
    """
    if is_tflite(model):
        return ()
    names = sorted({_said(tensor).get("location", "") for tensor in _external(model)[1]})
    for name in names:
        if not _PLAIN_NAME.fullmatch(name):
            raise PackagingError(
                f"the model's weights are in {name[:80]!a}, which is no file beside it", HOW_TO_SAVE
            )
    if len(names) > FILES_MAX:
        raise PackagingError(
            f"the model's weights are in {len(names)} files; at most {FILES_MAX} are read",
            HOW_TO_SAVE,
        )
    return tuple(names)


def joined(model: bytes, files: Mapping[str, bytes], size_max_bytes: int) -> bytes:
    """The model with the weights of `files` inside; the same bytes for the same input.

    Raises PackagingError: a range that its file does not have or that is not as long as its tensor,
    a result above `size_max_bytes`.
    """
    proto, tensors = _external(model)
    if not tensors:
        return model
    left_bytes = size_max_bytes - len(model)
    for tensor in tensors:
        content = _range(tensor, files)
        left_bytes -= len(content)
        if left_bytes < 0:
            raise PackagingError(
                f"the model with its weights is above {size_max_bytes} bytes",
                "quantise or prune it, or raise [limits] upload_max_bytes",
            )
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return bytes(proto.SerializeToString(deterministic=True))


def _external(model: bytes) -> tuple[onnx.ModelProto, list[Any]]:
    proto = parse_onnx(model)
    return proto, external_tensors(proto)


def _said(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _range(tensor: Any, files: Mapping[str, bytes]) -> bytes:
    said = _said(tensor)
    content = files.get(said.get("location", ""), b"")
    size_bytes = _size_bytes(tensor)
    offset, length = said.get("offset", "0"), said.get("length", str(size_bytes))
    if _NUMBER.fullmatch(offset) and length == str(size_bytes):
        start = int(offset)
        if start + size_bytes <= len(content):
            return content[start : start + size_bytes]
    raise PackagingError(
        f"the weights {tensor.name[:80]!a} are {size_bytes} bytes, and said to be {length[:20]!a} "
        f"at {offset[:20]!a} of a file of {len(content)}: the files do not belong together, or one "
        "is truncated",
        HOW_TO_SAVE,
    )


def _size_bytes(tensor: Any) -> int:
    """Raises PackagingError for an element type that cannot be outside."""
    kind = tensor.data_type
    if kind in _NEVER_OUTSIDE or any(size < 0 for size in tensor.dims):
        raise PackagingError(
            f"the weights {tensor.name[:80]!a} have no size that is known here", HOW_TO_SAVE
        )
    bits = 4 if kind in _HALF_BYTES else 8 * ELEMENT_BYTES.get(kind, 1)
    return (math.prod(int(size) for size in tensor.dims) * bits + 7) // 8
