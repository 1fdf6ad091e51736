"""What a tick of the reconciler costs over a large fleet, beside a bare scan of its devices.

A finished rollout speaks for the whole fleet, as it does for most of a controller's life; then one
is under way, its first 1% of the fleet committed, and 1% of the devices send a window between two
ticks. CPU time of one thread, in process, on SQLite: a tick after which nothing changed, and one
after something did. The first tick, which reads everything, stands apart, and so does a look of the
gates, of which a wave has a few (core.waves.look_number).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import insert, text

from edgeloop_controller import composition
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.composition import Parts
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.core.rollout import MemberPhase, RolloutStatus, RolloutTerms
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import (
    Assignment,
    Base,
    Device,
    DeviceSlot,
    Rollout,
    RolloutMember,
)
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import (
    Inventory,
    Probation,
    Record,
    Reported,
    RuntimeInfo,
    SlotReported,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic
from edgeloop_simulators.bench.model import BenchModel
from edgeloop_simulators.bench.table import Row

FLEETS: Final = (1_000, 10_000, 100_000)
CHANGING: Final = 0.01
TICKS: Final = 5
EPOCH: Final = "00000000000000be"
SITES: Final = 20


def reconcile_rows(model: BenchModel, directory: Path) -> list[Row]:
    return [row for count in FLEETS for row in _fleet_rows(model, directory / str(count), count)]


def _fleet_rows(model: BenchModel, directory: Path, count: int) -> list[Row]:
    with _controller(model, directory, count) as (parts, database, ref):
        first = _cpu_ms(parts.reconciler.tick)
        idle = _cheapest([lambda: None] * TICKS, parts.reconciler.tick)
        changes = [lambda turn=turn: _report(parts, ref, count, turn) for turn in range(TICKS)]
        changing = _cheapest(changes, parts.reconciler.tick)
        floor = _cheapest([lambda: None] * TICKS, lambda: _scan(database))
        target = _begin_rollout(parts, database, model, count)
        _cpu_ms(parts.reconciler.tick)
        waiting = _cheapest([lambda: None] * TICKS, parts.reconciler.tick)
        sending = [
            lambda turn=turn: _send(parts, ref, target, count, turn) for turn in range(TICKS)
        ]
        observing = _cheapest(sending, parts.reconciler.tick)
    scan = "a bare scan of the devices"
    return [
        Row(f"first tick, {count:,} devices", first, floor, "ms", scan),
        Row("tick, nothing changed", idle, floor, "ms", scan, 2),
        Row("tick, 1% changed", changing, floor, "ms", scan, 2),
        Row("tick in a rollout, nothing changed", waiting, floor, "ms", scan, 2),
        Row("tick in a rollout, 1% sent a window", observing, floor, "ms", scan, 2),
    ]


def _cheapest(befores: Sequence[Callable[[], object]], work: Callable[[], object]) -> float:
    measured = []
    for before in befores:
        before()
        measured.append(_cpu_ms(work))
    return min(measured)


def _cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def _scan(database: Database) -> None:
    with database.engine.connect() as connection:
        connection.execute(text("SELECT id, online, change FROM devices")).fetchall()


def _report(parts: Parts, ref: VersionRef, count: int, turn: int) -> None:
    """1% of the fleet restarts its runner."""
    for number in range(0, count, round(1 / CHANGING)):
        slot = _slot(ref).model_copy(update={"runner_restarts": turn + 1})
        reported = Reported(epoch=EPOCH, sequence=turn + 2, revision=1, slots=(slot,))
        parts.services.inbox.put(up_topic(_id(number), Up.REPORTED), encode(reported))
    parts.services.ingest.work()


def _begin_rollout(parts: Parts, database: Database, model: BenchModel, count: int) -> VersionRef:
    """Of a second version; every hundredth device has committed it."""
    manifest = model.manifest.model_copy(update={"version": "2"})
    target = parts.services.publishing.publish(model.onnx, manifest).manifest.ref()
    now = time.time()
    with database.writing() as session:
        rollout = _rollout(target)
        rollout.id, rollout.status, rollout.waves = 2, RolloutStatus.RUNNING.value, ["1%", "100%"]
        rollout.started_at = rollout.wave_started_at = now
        rollout.ended_at = None
        session.add(rollout)
        session.flush()
        members = [
            _member(_id(number)) | {"rollout_id": 2, "offered_at": now, "settled_at": now}
            for number in range(0, count, round(1 / CHANGING))
        ]
        session.execute(insert(Base.metadata.tables[RolloutMember.__tablename__]), members)
    return target


def _send(parts: Parts, old: VersionRef, target: VersionRef, count: int, turn: int) -> None:
    """Every two hundredth of the members' neighbours and of the members: 1% of the fleet."""
    step = round(1 / CHANGING)
    for number in range(0, count, step):
        device, version = (number, target) if (number // step) % 2 else (number + 1, old)
        window = WindowSummary(
            slot="main",
            version=version,
            started_at=0.0,
            ended_at=1.0,
            count=100,
            latency_p50_us=100.0,
            latency_p95_us=120.0,
            memory_bytes=2**24,
            predictions=(50, 50),
        )
        batch = TelemetryBatch(
            epoch=EPOCH, base=turn + 1, records=(Record(sequence=turn + 1, body=window),)
        )
        parts.services.inbox.put(up_topic(_id(device), Up.TELEMETRY), encode(batch))
    parts.services.ingest.work()


class _Nobody:
    """A broker that takes everything."""

    def publish(self, _topic: str, _payload: bytes) -> bool:
        return True


@contextmanager
def _controller(
    model: BenchModel, directory: Path, count: int
) -> Iterator[tuple[Parts, Database, VersionRef]]:
    directory.mkdir(parents=True)
    config = ControllerConfig(data_dir=directory)
    database = Database(config.database)
    artifacts = LocalArtifactStore(config.artifacts_dir)
    try:
        parts = composition.build(
            config, database, _Nobody(), SystemClock(), artifacts, LocalExecutor()
        )
        ref = parts.services.publishing.publish(model.onnx, model.manifest).manifest.ref()
        _fill(database, ref, count)
        yield parts, database, ref
    finally:
        database.close()


def _fill(database: Database, ref: VersionRef, count: int) -> None:
    """A fleet that has committed the version, as the end of a rollout leaves it."""
    with database.writing() as session:
        session.add(_rollout(ref))
        session.flush()
        ids = [_id(number) for number in range(count)]
        tables = {
            Device: [_device(device_id, number) for number, device_id in enumerate(ids)],
            DeviceSlot: [_slot_row(device_id, ref) for device_id in ids],
            Assignment: [_assignment(device_id, ref) for device_id in ids],
            RolloutMember: [_member(device_id) for device_id in ids],
        }
        for table, rows in tables.items():
            session.execute(insert(Base.metadata.tables[table.__tablename__]), rows)


def _id(number: int) -> str:
    return f"bench-{number:06d}"


def _rollout(ref: VersionRef) -> Rollout:
    return Rollout(
        id=1,
        manifest_digest=ref.manifest_digest,
        slot="main",
        selector="all",
        waves=["100%"],
        terms=RolloutTerms().model_dump(mode="json"),
        status=RolloutStatus.DONE.value,
        wave=0,
        wave_started_at=0.0,
        started_at=0.0,
        ended_at=1.0,
    )


def _device(device_id: str, number: int) -> dict[str, object]:
    inventory = Inventory(
        agent_version="bench",
        architecture="x86_64",
        python="3.11",
        runtimes=(RuntimeInfo(name="onnx", version="1.20", max_opset=21, max_ir_version=10),),
        memory_bytes=2**30,
        disk_free_bytes=2**30 + number,
        cpu_count=1,
    )
    return {
        "id": device_id,
        "first_seen_at": 0.0,
        "last_seen_at": 0.0,
        "online": True,
        "epoch": EPOCH,
        "state_sequence": 1,
        "revision_seen": 1,
        "desired_revision": 1,
        "desired": [],
        "agent_labels": {"site": f"s{number % SITES}"},
        "labels": {},
        "inventory": inventory.model_dump(mode="json"),
        "bytes_up": 0,
        "change": 1,
    }


def _slot(ref: VersionRef) -> SlotReported:
    return SlotReported(slot="main", state=SlotState.COMMITTED, champion=ref, runner_alive=True)


def _slot_row(device_id: str, ref: VersionRef) -> dict[str, object]:
    return {
        "device_id": device_id,
        "slot": "main",
        "state": SlotState.COMMITTED.value,
        "champion_digest": ref.manifest_digest,
        "reported": _slot(ref).model_dump(mode="json"),
        "updated_at": 0.0,
    }


def _assignment(device_id: str, ref: VersionRef) -> dict[str, object]:
    return {
        "device_id": device_id,
        "slot": "main",
        "manifest_digest": ref.manifest_digest,
        "rollout_id": 1,
        "probation": Probation().model_dump(mode="json"),
        "reason": "rollout 1, wave 1",
    }


def _member(device_id: str) -> dict[str, object]:
    return {
        "rollout_id": 1,
        "device_id": device_id,
        "wave": 0,
        "phase": MemberPhase.COMMITTED.value,
        "offered_at": 0.0,
        "settled_at": 1.0,
        "before_digest": None,
        "cause": "",
    }
