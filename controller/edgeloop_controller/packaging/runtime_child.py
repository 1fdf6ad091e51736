"""The child of `runtime`: loads a model, runs inputs.npy, writes outputs.npz, all in one folder.

Usage: python -m edgeloop_controller.packaging.runtime_child DIRECTORY MEMORY_MAX_BYTES
Invariants: whatever goes wrong in Python is told in error.txt and by exit code 1; a model is fed
by the code that devices feed it by, and one that has a state is run row after row.
"""

import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeloop_controller.packaging.interface import Interface
from edgeloop_protocol.feeding import Feeder, Tensors, real
from edgeloop_protocol.onnx_telemetry import opt_out

ROWS_AT_ONCE: Final = 4096

RunOnce = Callable[[Tensors], list[NDArray[Any]]]
"""Inputs by name → all outputs, in the interface's order."""


def main(directory: Path, memory_max_bytes: int) -> int:
    interface = Interface.model_validate_json((directory / "interface.json").read_bytes())
    # Imported before the limit is set: the libraries themselves map a lot of address space.
    load = LOADERS[interface.runtime]()
    resource.setrlimit(resource.RLIMIT_AS, (memory_max_bytes, memory_max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # From bytes, so that no path stands for external data to be resolved against.
        model = (directory / "model").read_bytes()
        inputs = np.load(directory / "inputs.npy", allow_pickle=False)
        outputs = outputs_of(load(model, interface), inputs, interface)
    except Exception as error:  # told to the parent, which raises
        (directory / "error.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        return 1
    arrays: dict[str, Any] = dict(outputs)
    np.savez(directory / "outputs.npz", **arrays)
    return 0


def outputs_of(run: RunOnce, inputs: Any, interface: Interface) -> Tensors:
    """Every output by name, as real numbers, for `inputs` (rows, features); from a fresh state."""
    feeder = Feeder(interface.inputs, interface.feeds, interface.features)
    at_once = ROWS_AT_ONCE if feeder.takes_several and not interface.stateful else 1
    parts: list[Sequence[NDArray[Any]]] = []
    for start in range(0, len(inputs), at_once):
        found = run(feeder.with_state(feeder.tensors(inputs[start : start + at_once])))
        by_name = {spec.name: one for spec, one in zip(interface.outputs, found, strict=True)}
        feeder.keep(by_name)
        parts.append(found)
    return {
        spec.name: real(
            np.concatenate([np.asarray(part[number]) for part in parts]), spec.quantisation
        )
        for number, spec in enumerate(interface.outputs)
    }


def onnx_loader() -> Callable[[bytes, Interface], RunOnce]:
    """With one thread."""
    opt_out()
    import onnxruntime

    def load(model: bytes, interface: Interface) -> RunOnce:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [spec.name for spec in interface.outputs]
        return lambda feeds: list(session.run(names, feeds))

    return load


def tflite_loader() -> Callable[[bytes, Interface], RunOnce]:
    """With one thread."""
    from ai_edge_litert.interpreter import Interpreter

    def load(model: bytes, interface: Interface) -> RunOnce:
        interpreter = Interpreter(model_content=model, num_threads=1)
        places = {one["name"]: one["index"] for one in interpreter.get_input_details()}
        outputs = {one["name"]: one["index"] for one in interpreter.get_output_details()}
        laid_out: dict[str, tuple[int, ...]] = {}

        def run(feeds: Tensors) -> list[NDArray[Any]]:
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != laid_out:
                for name, shape in shapes.items():
                    interpreter.resize_tensor_input(places[name], shape, strict=True)
                interpreter.allocate_tensors()
                laid_out.update(shapes)
            for name, array in feeds.items():
                interpreter.set_tensor(places[name], array)
            interpreter.invoke()
            return [interpreter.get_tensor(outputs[spec.name]) for spec in interface.outputs]

        return run

    return load


LOADERS: Final = {"onnx": onnx_loader, "tflite": tflite_loader}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
