"""The child of `runtime`: loads model.onnx, runs inputs.npy, writes outputs.npz, all in one folder.

Usage: python -m edgeloop_controller.packaging.runtime_child DIRECTORY MEMORY_MAX_BYTES
Invariant: whatever goes wrong in Python is told in error.txt and by exit code 1.
"""

import resource
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

ROWS_AT_ONCE: Final = 4096


def main(directory: Path, memory_max_bytes: int) -> int:
    # Imported before the limit is set: the libraries themselves map a lot of address space.
    import onnxruntime

    resource.setrlimit(resource.RLIMIT_AS, (memory_max_bytes, memory_max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # From bytes, so that no path stands for external data to be resolved against.
        model = (directory / "model.onnx").read_bytes()
        inputs = np.load(directory / "inputs.npy", allow_pickle=False)
        outputs = outputs_of(onnxruntime, model, inputs)
    except Exception as error:  # told to the parent, which raises
        (directory / "error.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        return 1
    np.savez(directory / "outputs.npz", **outputs)
    return 0


def outputs_of(onnxruntime: Any, model: bytes, inputs: Any) -> dict[str, Any]:
    """Every output by name, for `inputs` (rows, features); with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (input_,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    at_once = 1 if input_.shape and input_.shape[0] == 1 else ROWS_AT_ONCE
    parts = [
        session.run(names, {input_.name: inputs[start : start + at_once]})
        for start in range(0, len(inputs), at_once)
    ]
    return {
        name: np.concatenate([np.asarray(part[i]) for part in parts])
        for i, name in enumerate(names)
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
