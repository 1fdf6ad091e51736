"""The controller's shell for tests: a real database, a broker that remembers, tiny models."""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from edgeloop_controller import composition
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.composition import Parts
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store.engine import Database
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_controller.trust_store import LocalTrustStore
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import (
    Ack,
    Desired,
    DeviceEvent,
    Hello,
    Inventory,
    Record,
    Refusal,
    Reported,
    RuntimeInfo,
    SlotReported,
    TelemetryBatch,
    VersionRef,
    decode,
    encode,
)
from edgeloop_protocol.topics import Down, Up, parse_down_topic, up_topic
from edgeloop_simulators.twins.clock import SimulatedClock

FEATURES = ("ax", "ay", "gx")
LABELS = ("still", "walk")
DRAFT = """
features = ["ax", "ay", "gx"]
labels = ["still", "walk"]
[sensors]
ax = "accelerometer"
ay = "accelerometer"
gx = "gyroscope"
"""


def tiny_model(seed: int = 0) -> bytes:
    """Three features, two labels: Gemm and Softmax."""
    weights = np.random.default_rng(seed).normal(size=(3, 2)).astype(np.float32)
    bias = np.zeros(2, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
            helper.make_node("Softmax", ["z"], ["scores"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def answers(seed: int, features: Any) -> Any:
    """What `tiny_model(seed)` answers: label numbers."""
    weights = np.random.default_rng(seed).normal(size=(3, 2)).astype(np.float32)
    return (np.asarray(features, dtype=np.float32) @ weights).argmax(axis=1)


def baseline_parquet(seed: int = 0, rows: int = 600) -> bytes:
    values = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    columns: dict[str, Any] = {name: values[:, i] for i, name in enumerate(FEATURES)}
    table = pa.table({**columns, "group": [f"g{i * 6 // rows}" for i in range(rows)]})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@dataclass
class FakeBroker:
    """Remembers what was said; `up = False` refuses, as a broker that is away."""

    said: list[tuple[str, bytes]] = field(default_factory=list)
    up: bool = True

    def publish(self, topic: str, payload: bytes) -> bool:
        if self.up:
            self.said.append((topic, payload))
        return self.up

    def acks(self, device_id: str) -> list[Ack]:
        return [decode(Ack, p) for p in self._to(device_id, Down.ACK)]

    def desired(self, device_id: str) -> list[Desired]:
        return [decode(Desired, p) for p in self._to(device_id, Down.DESIRED)]

    def _to(self, device_id: str, kind: Down) -> list[bytes]:
        return [p for t, p in self.said if parse_down_topic(t) == (device_id, kind)]


INVENTORY = Inventory(
    agent_version="1",
    architecture="x86_64",
    python="3.11",
    runtimes=(
        RuntimeInfo(name="onnxruntime", version="1.20", max_opset=21, max_ir_version=10),
        RuntimeInfo(name="onnx", version="1.20", max_opset=21, max_ir_version=10),
    ),
    memory_bytes=1 << 32,
    disk_free_bytes=1 << 32,
    cpu_count=2,
)


@dataclass
class FakeDevice:
    """A device that says what it is told to say."""

    id: str
    labels: dict[str, str] = field(default_factory=dict)
    epoch: str = "a" * 16
    sequence: int = 0
    revision: int = 0
    slots: tuple[SlotReported, ...] = ()
    patch_formats: tuple[str, ...] = ()

    def hello(self) -> Inbound:
        self.sequence += 1
        message = Hello(
            device_id=self.id,
            epoch=self.epoch,
            sequence=self.sequence,
            revision=self.revision,
            labels=self.labels,
            inventory=INVENTORY.model_copy(update={"patch_formats": self.patch_formats}),
            slots=self.slots,
        )
        return Inbound(up_topic(self.id, Up.HELLO), encode(message))

    def reported(self) -> Inbound:
        self.sequence += 1
        message = Reported(
            epoch=self.epoch, sequence=self.sequence, revision=self.revision, slots=self.slots
        )
        return Inbound(up_topic(self.id, Up.REPORTED), encode(message))

    def obeys(self, desired: Desired, refuse: str = "") -> Inbound:
        """Commit all that is desired, or roll it back with the cause `refuse`."""
        self.revision = desired.revision
        self.slots = tuple(
            self._slot(s.slot, s.offer.ref, refuse) for s in desired.slots if s.offer
        )
        return self.reported()

    def _slot(self, slot: str, version: VersionRef, refuse: str) -> SlotReported:
        before = next((s.champion for s in self.slots if s.slot == slot), None)
        if refuse:
            return SlotReported(
                slot=slot,
                state=SlotState.ROLLED_BACK,
                champion=before,
                refused=Refusal(version=version, cause=refuse),
            )
        return SlotReported(slot=slot, state=SlotState.COMMITTED, champion=version, previous=before)


def telemetry(device_id: str, epoch: str, first: int, count: int, base: int = 1) -> Inbound:
    records = tuple(
        Record(sequence=n, body=DeviceEvent(at=0.0, name=f"event-{n}"))
        for n in range(first, first + count)
    )
    batch = TelemetryBatch(epoch=epoch, base=base, records=records)
    return Inbound(up_topic(device_id, Up.TELEMETRY), encode(batch))


@dataclass
class Controller:
    """The controller's parts over a real database, without threads."""

    parts: Parts
    broker: FakeBroker
    clock: SimulatedClock

    def takes(self, *messages: Inbound) -> None:
        self.parts.services.ingest.process(messages)

    def publish(self, version: str, seed: int = 0, baseline: bool = False) -> VersionRef:
        published = self.parts.services.publishing.publish_files(
            tiny_model(seed), "tiny", version, DRAFT, baseline_parquet() if baseline else None
        )
        return published.manifest.ref()

    def keep(self, package: Any) -> VersionRef:
        """A version of the fixture `make_package`, published without a look at its model."""
        kept = self.parts.services.publishing.publish(package.model, package.manifest)
        return kept.manifest.ref()


def make_controller(database: Database, config: ControllerConfig) -> Controller:
    broker = FakeBroker()
    clock = SimulatedClock()
    artifacts = LocalArtifactStore(config.artifacts_dir)
    parts = composition.build(
        config,
        database,
        broker,
        clock,
        artifacts,
        LocalExecutor(),
        trust_store=LocalTrustStore(config.trust_dir),
    )
    return Controller(parts, broker, clock)
