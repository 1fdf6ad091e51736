"""ONNX Runtime as a runtime of the runner.

Invariants: the model is loaded from memory, in an empty working directory (`runner.main`), so that
external data cannot name a file; one thread computes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import onnxruntime
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner import onnx_limits
from edgeloop_agent.runner.runtimes import Feeds
from edgeloop_protocol.manifest import DType, Manifest, TensorSpec
from edgeloop_protocol.messages import RuntimeInfo

NAME: Final = "onnx"
_QUIET: Final = 3  # errors only; onnxruntime warns on stderr about harmless things
_DTYPES: Final[dict[str, DType]] = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}


class OnnxRuntime:
    def load(self, model: bytes, manifest: Manifest) -> "OnnxSession":  # noqa: ARG002 - the port's
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _QUIET
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime raises its own unrelated types for bad models
            raise ModelLoadError(f"onnxruntime cannot load it: {error}") from error
        return OnnxSession(session)

    def probe(self) -> RuntimeInfo:
        return RuntimeInfo(
            name=NAME,
            version=onnxruntime.__version__,
            max_opset=onnx_limits.max_opset(),
            max_ir_version=onnx_limits.max_ir_version(),
        )


class OnnxSession:
    """An ONNX graph keeps no state of its own: what it remembers, it is fed."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(map(_spec, session.get_inputs()))
        self.outputs = tuple(map(_spec, session.get_outputs()))

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[Any]]:
        try:
            found: list[NDArray[Any]] = self._session.run(outputs, dict(feeds))
        except Exception as error:  # the runtime raises its own unrelated types for bad inputs
            raise ModelLoadError(f"inference failed: {error}") from error
        return found

    def bind(self, feeds: Feeds, output: str, into: NDArray[Any]) -> Callable[[], None]:
        """The arrays' memory is bound once: no array is made, and no name looked up, per run."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            _bind(binding.bind_input, name, array)
        _bind(binding.bind_output, output, into)
        held = (binding, dict(feeds), into)  # the binding holds addresses, not the arrays
        run = self._session.run_with_iobinding

        def bound() -> None:
            try:
                run(held[0])
            except Exception as error:
                raise ModelLoadError(f"inference failed: {error}") from error

        return bound

    def reset(self) -> None:
        """There is nothing to forget."""


def _bind(bind: Callable[..., None], name: str, array: NDArray[Any]) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise ModelLoadError(f"{tensor.name} is a {tensor.type}, which is not supported")
    shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    return TensorSpec(name=tensor.name, dtype=_DTYPES[tensor.type], shape=shape)
