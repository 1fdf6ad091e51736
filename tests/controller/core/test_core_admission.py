"""Which devices can run a version at all."""

from typing import Any

import pytest

from edgeloop_controller.core.admission import unfit
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, Requirements, TensorSpec
from edgeloop_protocol.messages import Inventory, RuntimeInfo

ONNX = RuntimeInfo(name="onnx", version="1.20", max_opset=21, max_ir_version=10)
DEVICE = Inventory(
    agent_version="1",
    architecture="x86_64",
    python="3.11",
    runtimes=(ONNX,),
    memory_bytes=1000,
    disk_free_bytes=1000,
    cpu_count=1,
)


def manifest(requires: Requirements | None = None, **artifact: Any) -> Manifest:
    return Manifest(
        name="m",
        version="1",
        artifact=Artifact(digest="a" * 64, size_bytes=1, **artifact),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
        scores_output="p",
        features=(Feature(name="f", sensor="f"),),
        labels=("0", "1"),
        requires=requires or Requirements(),
    )


@pytest.mark.parametrize(
    ("model", "device", "says"),
    [
        (manifest(), {}, ""),
        (manifest(opset=21, ir_version=10), {}, ""),
        (manifest(opset=22), {}, "onnx 1.20 reads opset up to 21; the version needs 22"),
        (manifest(ir_version=11), {}, "IR version up to 10; the version needs 11"),
        (manifest(runtime="tflite"), {}, "no tflite runtime; the device has onnx"),
        (manifest(), {"runtimes": ()}, "no onnx runtime; the device has none"),
        (manifest(Requirements(architectures=("aarch64",))), {}, "architecture x86_64"),
        (manifest(Requirements(architectures=("arm64",))), {"architecture": "aarch64"}, ""),
        (manifest(Requirements(memory_bytes=2000)), {}, "1000 bytes of memory; the version needs"),
        (manifest(Requirements(disk_bytes=10**9)), {}, ""),
    ],
)
def test_unfit(model: Manifest, device: dict[str, Any], says: str) -> None:
    cause = unfit(model, DEVICE.model_copy(update=device))
    assert says in cause
    assert bool(cause) is bool(says)


def test_one_runtime_that_can_is_enough() -> None:
    old = ONNX.model_copy(update={"max_opset": 12})
    device = DEVICE.model_copy(update={"runtimes": (old, ONNX)})
    assert unfit(manifest(opset=17), device) == ""
