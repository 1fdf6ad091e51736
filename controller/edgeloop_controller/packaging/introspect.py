"""What an ONNX file says of itself: inputs, outputs, opset, operators.

Invariants: reads only the bytes given; external data is refused, never resolved.
"""

from dataclasses import dataclass

from edgeloop_protocol.manifest import TensorSpec


@dataclass(frozen=True)
class ModelFacts:
    """Read from the file; `inputs` are the real ones, without initialisers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir_version: int
    operators: tuple[str, ...]


def introspect(model: bytes) -> ModelFacts:
    """Raises PackagingError: not a model, truncated, external data, too new, several inputs."""
    raise NotImplementedError
