"""Running a model away from the controller: a child process with a time and a memory limit.

Invariants: a model that crashes, hangs or exhausts memory takes down the child, never the caller;
nothing is unpickled; nothing stays on disk.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class RunModel(Protocol):
    """How packaging and evaluation run a model; `run_model` is the real one."""

    def __call__(self, model: bytes, inputs: Floats) -> Mapping[str, NDArray[np.generic]]:
        """All outputs, by name, for `inputs` (rows, features). Raises PackagingError."""


def run_model(model: bytes, inputs: Floats) -> Mapping[str, NDArray[np.generic]]:
    """Run an ONNX model with onnxruntime in a child process. Raises PackagingError."""
    raise NotImplementedError
