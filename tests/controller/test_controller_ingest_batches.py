"""Whatever devices say, it comes to the same in one transaction as in one for each message."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from edgeloop_controller import composition
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Base
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import (
    Hello,
    Inventory,
    Presence,
    Reported,
    SlotReported,
    VersionRef,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic
from edgeloop_simulators.twins.clock import SimulatedClock

VERSIONS = [VersionRef(name="m", version=v, manifest_digest=v * 64) for v in "12"]
EVENT = {"kind": "event", "at": 1.0, "name": "fine"}
UNKNOWN = {"kind": "new"}
UNSTORABLE = {
    "kind": "window",
    "slot": "main",
    "version": VERSIONS[0].model_dump(),
    "started_at": 0.0,
    "ended_at": 1.0,
    "count": 2**70,
    "latency_p50_us": 1.0,
    "latency_p95_us": 2.0,
}
COMPARED_APART = {"change"}
"""It counts transactions."""

ids = st.sampled_from(["d1", "d2", "d3"])
epochs = st.sampled_from(["a" * 16, "b" * 16])
sequences = st.sampled_from([*range(1, 10), 2**70])
slots = st.lists(
    st.builds(
        SlotReported,
        slot=st.sampled_from(["main", "aux"]),
        state=st.sampled_from([SlotState.IDLE, SlotState.COMMITTED]),
        champion=st.sampled_from([None, *VERSIONS]),
    ),
    max_size=2,
).map(tuple)
inventories = st.builds(
    Inventory,
    agent_version=st.just("1"),
    architecture=st.just("x86_64"),
    python=st.just("3.11"),
    memory_bytes=st.sampled_from([1, 2]),
    disk_free_bytes=st.just(1),
    cpu_count=st.just(1),
)
hellos = st.builds(
    Hello,
    device_id=ids,
    epoch=epochs,
    sequence=sequences,
    revision=st.integers(0, 2),
    labels=st.sampled_from([{}, {"site": "lab"}]),
    inventory=inventories,
    slots=slots,
).map(lambda m: Inbound(up_topic(m.device_id, Up.HELLO), encode(m)))
reports = st.builds(
    Reported, epoch=epochs, sequence=sequences, revision=st.integers(0, 2), slots=slots
)
presences = st.builds(Presence, epoch=epochs, online=st.booleans())
telemetry = st.builds(
    lambda epoch, first, bodies: {
        "kind": "telemetry",
        "epoch": epoch,
        "base": max(1, first - 1),
        "records": [{"sequence": n, "body": b} for n, b in enumerate(bodies, start=first)],
    },
    epochs,
    st.integers(1, 6),
    st.lists(st.sampled_from([EVENT, EVENT, UNKNOWN, UNSTORABLE]), min_size=1, max_size=3),
)
messages = st.lists(
    st.one_of(
        hellos,
        st.builds(lambda i, m: Inbound(up_topic(i, Up.REPORTED), encode(m)), ids, reports),
        st.builds(lambda i, m: Inbound(up_topic(i, Up.PRESENCE), encode(m)), ids, presences),
        st.builds(
            lambda i, m: Inbound(up_topic(i, Up.TELEMETRY), json.dumps(m).encode()), ids, telemetry
        ),
        st.builds(lambda i: Inbound(up_topic(i, Up.REPORTED), b"junk"), ids),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "empty.sqlite"
    Database(f"sqlite:///{path}", durable=False).close()
    return path


class _Silent:
    def publish(self, topic: str, payload: bytes) -> bool:
        return True


def _outcome(template: Path, said: Sequence[Inbound], batch: int) -> dict[str, Any]:
    with TemporaryDirectory() as made:
        config = ControllerConfig(data_dir=Path(made))
        shutil.copy(template, Path(made) / "edgeloop.sqlite")
        database = Database(config.database, migrate=False, durable=False)
        artifacts = LocalArtifactStore(config.artifacts_dir)
        parts = composition.build(
            config, database, _Silent(), SimulatedClock(), artifacts, LocalExecutor()
        )
        for first in range(0, len(said), batch):
            parts.services.ingest.process(said[first : first + batch])
        with database.engine.connect() as connection:
            found: dict[str, Any] = {
                table.name: [
                    {k: v for k, v in row.items() if k not in COMPARED_APART}
                    for row in connection.execute(select(table).order_by(*table.primary_key))
                    .mappings()
                    .all()
                ]
                for table in Base.metadata.sorted_tables
            }
        database.close()
        return found | {"counters": vars(parts.services.ingest.counters)}


@given(said=messages, batch=st.integers(2, 25))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_batch_comes_to_the_same_as_its_messages_one_by_one(
    template: Path, said: list[Inbound], batch: int
) -> None:
    assert _outcome(template, said, batch) == _outcome(template, said, 1)
