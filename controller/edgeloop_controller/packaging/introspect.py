"""What a model file says of itself: inputs, outputs, opset, operators. ONNX here; TFLite apart.

Invariants: reads only the bytes given and runs nothing; external data is refused, never resolved,
because a path in a model could name any file of this machine.
"""

from collections.abc import Iterator
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.facts import ModelFacts
from edgeloop_controller.packaging.introspect_tflite import introspect_tflite, is_tflite
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES
from edgeloop_protocol.manifest import DType, TensorSpec

DEFAULT_DOMAINS: Final = ("", "ai.onnx")

_DTYPES: Final[dict[int, DType]] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.STRING: "string",
}


def introspect(model: bytes) -> ModelFacts:
    """Raises PackagingError: not a model, truncated, external data, too new, no input."""
    if is_tflite(model):
        return introspect_tflite(model)
    proto = parse_onnx(model)
    graph = proto.graph
    if external_tensors(proto):
        raise PackagingError(
            "the model keeps weights in external files, which are not read",
            "save it as one file: onnx.save(model, path, save_as_external_data=False)",
        )
    opset = next((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), None)
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and opset > newest:
        raise PackagingError(
            f"the model needs opset {opset}; this controller knows up to {newest}",
            f"export it for opset {newest} or older",
        )
    constants = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_tensor(value) for value in graph.input if value.name not in constants)
    if not inputs:
        raise PackagingError(
            "the model has no input", "export it with an input of shape (batch, features)"
        )
    return ModelFacts(
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in graph.output),
        opset=opset,
        ir_version=proto.ir_version,
        operators=tuple(sorted({_operator(node) for node in _nodes(proto)})),
    )


def parse_onnx(model: bytes) -> onnx.ModelProto:
    """Raises PackagingError for what is no ONNX file, or not all of one."""
    if not model:
        raise PackagingError("the model file is empty", "give the path of an ONNX or a TFLite file")
    if len(model) > ARTIFACT_MAX_BYTES:
        raise PackagingError(
            f"the model is {len(model)} bytes; the limit is {ARTIFACT_MAX_BYTES}",
            "quantise or prune it",
        )
    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError) as error:
        raise PackagingError(
            "the file is not an ONNX model, or it is truncated",
            "export it again and compare its size with the original's",
        ) from error
    if not proto.graph.node or not proto.graph.output or not proto.ir_version:
        raise PackagingError(
            "the file is not an ONNX model, or it is truncated: it has no complete graph",
            "export it again and compare its size with the original's",
        )
    return proto


def _tensor(value: Any) -> TensorSpec:
    if value.type.WhichOneof("value") != "tensor_type":
        raise PackagingError(
            f"{value.name} is not a tensor but a {value.type.WhichOneof('value')}",
            "with skl2onnx, convert with options={id(model): {'zipmap': False}}",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DTYPES:
        raise PackagingError(
            f"{value.name} has element type {onnx.TensorProto.DataType.Name(tensor.elem_type)}",
            f"use one of {', '.join(_DTYPES.values())}",
        )
    dimensions = tensor.shape.dim if tensor.HasField("shape") else ()
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)
    return TensorSpec(name=value.name, dtype=_DTYPES[tensor.elem_type], shape=shape)


def _operator(node: Any) -> str:
    """`Gemm`, or `ai.onnx.ml.Normalizer` outside the default set."""
    operator = str(node.op_type)
    return operator if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{operator}"


def external_tensors(proto: onnx.ModelProto) -> list[Any]:
    """Those whose numbers are in files beside the model."""
    outside = onnx.TensorProto.EXTERNAL
    return [
        tensor
        for tensor in _tensors(proto)
        if tensor.data_location == outside or tensor.external_data
    ]


def _graphs(proto: onnx.ModelProto) -> Iterator[Any]:
    """The model's graph, its functions, and every graph inside a node's attributes."""
    waiting: list[Any] = [proto.graph, *proto.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend(attribute.graphs)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def _nodes(proto: onnx.ModelProto) -> Iterator[Any]:
    for graph in _graphs(proto):
        yield from graph.node


def _tensors(proto: onnx.ModelProto) -> Iterator[Any]:
    """Every tensor that the file holds: initialisers (sparse ones too) and attributes."""
    for graph in _graphs(proto):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                    yield from (sparse.values, sparse.indices)
