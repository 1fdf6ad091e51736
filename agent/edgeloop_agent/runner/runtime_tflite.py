"""TFLite as a runtime of the runner: by ai-edge-litert, or by tflite-runtime where that is there.

Both have the same Interpreter; the second is the last that armv7 and numpy 1 get. Invariants: the
model is loaded from memory; one thread computes; `reset` builds the interpreter anew, because
`reset_all_variables` leaves resource variables (VAR_HANDLE) and their initial values to chance.

A truncated model crashes tflite-runtime, which verifies no flatbuffer, and with it this process:
the runner's supervisor rolls back as after any crash. ai-edge-litert refuses it in words.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_agent.errors import ModelLoadError
from edgeloop_agent.runner.runtimes import Feeds
from edgeloop_protocol.manifest import DType, Manifest, Quantisation, TensorSpec
from edgeloop_protocol.messages import RuntimeInfo

try:
    from ai_edge_litert.interpreter import Interpreter

    DISTRIBUTION = "ai-edge-litert"
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter

    DISTRIBUTION = "tflite-runtime"

NAME: Final = "tflite"
IDENTIFIER: Final = b"TFL3"
_DTYPES: Final[dict[Any, DType]] = {
    np.float16: "float16",
    np.float32: "float32",
    np.float64: "float64",
    np.int8: "int8",
    np.uint8: "uint8",
    np.int16: "int16",
    np.int32: "int32",
    np.int64: "int64",
    np.bool_: "bool",
}


class TfliteRuntime:
    def load(self, model: bytes, manifest: Manifest) -> "TfliteSession":  # noqa: ARG002 - the port's
        return TfliteSession(model)

    def probe(self) -> RuntimeInfo:
        from importlib.metadata import version

        return RuntimeInfo(name=NAME, version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")


class TfliteSession:
    """Variables inside of the model are its state; see `reset`."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._interpreter = self._built()
        inputs, outputs = self._details()
        self.inputs = tuple(map(_spec, inputs))
        self.outputs = tuple(map(_spec, outputs))
        self._inputs = {detail["name"]: int(detail["index"]) for detail in inputs}
        self._outputs = {detail["name"]: int(detail["index"]) for detail in outputs}
        self._shapes = {detail["name"]: tuple(detail["shape"].tolist()) for detail in inputs}

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[Any]]:
        try:
            self._fit(feeds)
            for name, array in feeds.items():
                self._interpreter.set_tensor(self._inputs[name], array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(self._outputs[name]) for name in outputs]
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelLoadError(f"inference failed: {error}") from error

    def bind(self, feeds: Feeds, output: str, into: NDArray[Any]) -> Callable[[], None]:
        pairs = [(self._inputs[name], array) for name, array in feeds.items()]
        place = self._outputs[output]

        def bound() -> None:
            interpreter = self._interpreter
            try:
                self._fit(feeds)
                for index, array in pairs:
                    interpreter.set_tensor(index, array)
                interpreter.invoke()
                found = interpreter.get_tensor(place)
            except (ValueError, RuntimeError) as error:
                raise ModelLoadError(f"inference failed: {error}") from error
            if found.shape != into.shape:
                raise ModelLoadError(f"{output} has shape {found.shape}; expected {into.shape}")
            into[...] = found

        return bound

    def reset(self) -> None:
        self._interpreter = self._built()
        self._shapes = {
            detail["name"]: tuple(detail["shape"].tolist()) for detail in self._details()[0]
        }

    def _built(self) -> Any:
        if self._model[4:8] != IDENTIFIER:  # tflite-runtime crashes on what is no flatbuffer
            raise ModelLoadError(f"{DISTRIBUTION} cannot load it: the file is not a TFLite model")
        try:
            interpreter = Interpreter(model_content=self._model, num_threads=1)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelLoadError(f"{DISTRIBUTION} cannot load it: {error}") from error
        return interpreter

    def _details(self) -> tuple[list[Any], list[Any]]:
        return self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def _fit(self, feeds: Feeds) -> None:
        """Another number of examples than the last time: tensors are laid out anew."""
        changed = [name for name, array in feeds.items() if self._shapes[name] != array.shape]
        if not changed:
            return
        for name in changed:
            self._interpreter.resize_tensor_input(
                self._inputs[name], feeds[name].shape, strict=True
            )
        self._interpreter.allocate_tensors()
        self._shapes.update({name: feeds[name].shape for name in changed})


def _spec(detail: Any) -> TensorSpec:
    dtype = _DTYPES.get(detail["dtype"])
    if dtype is None:
        raise ModelLoadError(f"{detail['name']} is of {detail['dtype']}, which is not supported")
    signature = detail["shape_signature"]
    shape = detail["shape"] if len(signature) == 0 else signature
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=detail["name"],
        dtype=dtype,
        shape=tuple(None if size < 0 else int(size) for size in shape),
        quantisation=Quantisation(scale=scale, zero_point=zero_point) if scale > 0 else None,
    )
