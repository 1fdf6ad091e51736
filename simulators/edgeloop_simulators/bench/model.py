"""The model of the benchmarks: 30 features, 32 hidden units, 7 labels, like the demo's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from edgeloop_controller.packaging.package import package
from edgeloop_protocol.manifest import Manifest, ManifestDraft
from edgeloop_protocol.preprocessing import Floats

FEATURES = 30
HIDDEN = 32
LABELS = tuple("abcdefg")
BASELINE_ROWS = 1000


@dataclass(frozen=True)
class BenchModel:
    onnx: bytes
    manifest: Manifest
    examples: Floats
    """(rows, features)"""

    def write(self, directory: Path) -> tuple[Path, Path]:
        """manifest.json and model.onnx, as a device's store holds them."""
        manifest_path, model_path = directory / "manifest.json", directory / "model.onnx"
        manifest_path.write_bytes(self.manifest.canonical())
        model_path.write_bytes(self.onnx)
        return manifest_path, model_path


def bench_model() -> BenchModel:
    random = np.random.default_rng(0)
    onnx = mlp(random)
    examples = random.normal(size=(BASELINE_ROWS, FEATURES)).astype(np.float32)
    names = tuple(f"f{number}" for number in range(FEATURES))
    baseline = pa.table({name: examples[:, number] for number, name in enumerate(names)})
    draft = ManifestDraft(features=names, labels=LABELS)
    return BenchModel(onnx, package(onnx, "bench", "1", draft, baseline), examples)


def mlp(random: np.random.Generator, hidden: int = HIDDEN) -> bytes:
    weights = {
        "w1": random.normal(size=(FEATURES, hidden)) / np.sqrt(FEATURES),
        "b1": np.zeros(hidden),
        "w2": random.normal(size=(hidden, len(LABELS))),
        "b2": np.zeros(len(LABELS)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(LABELS)])],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())
