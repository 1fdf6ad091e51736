"""What a TFLite file says of itself, read from its flatbuffer; nothing is run.

Invariants: reads only the bytes given; weights in external buffers are refused, never resolved; a
file that leads outside of itself is an error like a truncated one. ai-edge-litert brings the
schema; only that one module of it is imported here.
"""

from collections.abc import Callable
from typing import Any, Final

from edgeloop_controller.errors import PackagingError
from edgeloop_controller.packaging.facts import ModelFacts
from edgeloop_protocol.manifest import DType, Quantisation, TensorSpec

IDENTIFIER: Final = b"TFL3"
ITEMS_MAX: Final = 1_000_000
"""Of any list in the file."""

_STATE: Final = frozenset({"VAR_HANDLE", "ASSIGN_VARIABLE"})
_DTYPES: Final[dict[str, DType]] = {
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "FLOAT64": "float64",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def is_tflite(model: bytes) -> bool:
    return model[4:8] == IDENTIFIER


def introspect_tflite(model: bytes) -> ModelFacts:
    """Raises PackagingError."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as error:
        raise PackagingError(
            "this controller cannot read TFLite models: ai-edge-litert is not installed",
            "pip install 'edgeloop-controller[tflite]'",
        ) from error
    try:
        return _facts(schema, schema.Model.GetRootAs(model))
    except PackagingError:
        raise
    except Exception as error:  # whatever reading beyond the bytes raises
        raise PackagingError(
            "the file is not a TFLite model, or it is truncated",
            "export it again and compare its size with the original's",
        ) from error


def _facts(schema: Any, model: Any) -> ModelFacts:
    if model.ExternalBuffersLength() or model.ExternalBufferGroupsLength():
        raise PackagingError(
            "the model keeps weights in external files, which are not read",
            "export it as one file",
        )
    graphs = _items(model.SubgraphsLength(), model.Subgraphs)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    operators = {
        _operator(code, names) for code in _items(model.OperatorCodesLength(), model.OperatorCodes)
    }
    variables = any(
        tensor.IsVariable()
        for graph in graphs
        for tensor in _items(graph.TensorsLength(), graph.Tensors)
    )
    types = {number: name for name, number in vars(schema.TensorType).items()}
    main = graphs[0]
    return ModelFacts(
        runtime="tflite",
        inputs=_specs(main, _items(main.InputsLength(), main.Inputs), types),
        outputs=_specs(main, _items(main.OutputsLength(), main.Outputs), types),
        opset=None,
        ir_version=None,
        operators=tuple(sorted(operators)),
        stateful=variables or bool(operators & _STATE),
    )


def _items(length: int, item: Callable[[int], Any]) -> list[Any]:
    if length > ITEMS_MAX:
        raise ValueError(f"a list of {length}")
    return [item(number) for number in range(length)]


def _operator(code: Any, names: dict[int, str]) -> str:
    """`CONV_2D`, or `custom:Name`. Old files hold the code in a byte of its own."""
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    custom = code.CustomCode()
    return f"custom:{custom.decode()}" if custom else names.get(number, f"builtin:{number}")


def _specs(graph: Any, places: list[int], types: dict[int, str]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(graph.Tensors(place), types) for place in places)


def _spec(tensor: Any, types: dict[int, str]) -> TensorSpec:
    name, type_ = tensor.Name().decode(), types.get(tensor.Type(), str(tensor.Type()))
    if type_ not in _DTYPES:
        raise PackagingError(
            f"{name} has element type {type_}", f"use one of {', '.join(_DTYPES.values())}"
        )
    length = tensor.ShapeSignatureLength()
    item = tensor.ShapeSignature if length else tensor.Shape
    shape = _items(length or tensor.ShapeLength(), item)
    return TensorSpec(
        name=name,
        dtype=_DTYPES[type_],
        shape=tuple(None if size < 0 else int(size) for size in shape),
        quantisation=_quantisation(name, tensor.Quantization()),
    )


def _quantisation(name: str, found: Any) -> Quantisation | None:
    if found is None or not found.ScaleLength():
        return None
    if found.ScaleLength() > 1:
        raise PackagingError(
            f"{name} is quantised per channel; inputs and outputs can only be per tensor",
            "export with one scale for each input and output",
        )
    zero_point = found.ZeroPoint(0) if found.ZeroPointLength() else 0
    return Quantisation(scale=float(found.Scale(0)), zero_point=int(zero_point))
