"""What a model file says of itself, whatever its format."""

from dataclasses import dataclass

from edgeloop_protocol.manifest import TensorSpec


@dataclass(frozen=True)
class ModelFacts:
    """Read from the file; `inputs` are the real ones, without initialisers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int | None
    """Of ONNX's default operator set; None when the model uses other sets only."""
    ir_version: int | None
    operators: tuple[str, ...]
    runtime: str = "onnx"
    stateful: bool = False
    """It keeps variables: an answer depends on the examples before it."""
