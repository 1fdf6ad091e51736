"""Which devices can run a version at all."""

from typing import Any

import pytest

from edgeloop_protocol.admission import incompatible
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
        (
            manifest(runtime="tflite"),
            {},
            "no runtime: the version needs tflite, the device has onnx",
        ),
        (manifest(), {"runtimes": ()}, "the version needs onnx, the device has none"),
        (
            manifest(Requirements(architectures=("aarch64",))),
            {},
            "wrong architecture: the device is x86_64, the version is for aarch64",
        ),
        (manifest(Requirements(architectures=("arm64",))), {"architecture": "aarch64"}, ""),
        (manifest(Requirements(memory_bytes=2000)), {}, ""),
        (manifest(Requirements(disk_bytes=10**9)), {}, ""),
        (
            manifest(Requirements(memory_bytes=2000)),
            {"memory_total_bytes": 1999},
            "needs more memory than the device has: 2000 bytes wanted, 1999 there in all",
        ),
        (manifest(Requirements(memory_bytes=2000)), {"memory_total_bytes": 2000}, ""),
        (
            manifest(Requirements(disk_bytes=2000)),
            {"disk_total_bytes": 1999},
            "larger than the disk: 2000 bytes wanted, 1999 there in all",
        ),
    ],
)
def test_what_can_never_run_is_named(model: Manifest, device: dict[str, Any], says: str) -> None:
    problem = incompatible(model, DEVICE.model_copy(update=device))
    assert bool(problem) is bool(says)
    assert says in str(problem or "")


def test_one_runtime_that_can_is_enough() -> None:
    old = ONNX.model_copy(update={"max_opset": 12})
    device = DEVICE.model_copy(update={"runtimes": (old, ONNX)})
    assert incompatible(manifest(opset=17), device) is None
