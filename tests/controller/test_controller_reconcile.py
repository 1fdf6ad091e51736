"""What the reconciler remembers between ticks saves work and changes nothing."""

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from edgeloop_controller import composition
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.errors import ControllerError
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.services.labelling import GivenLabel
from edgeloop_controller.services.reconcile import Reconciler
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store import devices as device_store
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Base, Device, Rollout
from edgeloop_controller.store.tables import Sample as SampleRow
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.messages import (
    Comparison,
    Desired,
    Presence,
    Record,
    Sample,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    decode,
    encode,
)
from edgeloop_protocol.topics import Down, Up, parse_down_topic, up_topic
from edgeloop_simulators.twins.clock import SimulatedClock

SITES = ("a", "b")
NOT_COMPARED = {"change"}
DEVICES_MAX = 6
EPOCH = "a" * 16


@dataclass
class World:
    """A controller and devices that obey; `forgets`: its reconciler is started anew each tick."""

    directory: Path
    database: Database
    make_device: Any
    forgets: bool
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    said: list[tuple[str, bytes]] = field(default_factory=list)
    devices: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = ControllerConfig(data_dir=self.directory, offline_after_s=50)
        artifacts = LocalArtifactStore(config.artifacts_dir)
        self.parts = composition.build(
            config, self.database, self, self.clock, artifacts, LocalExecutor()
        )
        with self.database.reading() as session:
            rows = session.execute(select(*Base.metadata.tables["versions"].columns))
            self.versions = sorted(
                (
                    VersionRef(name=r.name, version=r.version, manifest_digest=r.manifest_digest)
                    for r in rows
                ),
                key=lambda ref: ref.version,
            )

    def publish(self, topic: str, payload: bytes) -> bool:
        self.said.append((topic, payload))
        return True

    def tick(self) -> None:
        services = self.parts.services
        reconciler = self.parts.reconciler
        if self.forgets:
            unheard = Unheard(self.database, self, self.clock)
            reconciler = Reconciler(
                self.database, services.registry, services.desired, unheard, self.clock, 50
            )
        reconciler.tick()

    def takes(self, *messages: Inbound) -> None:
        self.parts.services.ingest.process(messages)

    def desired(self, device_id: str) -> Desired | None:
        topics = [p for t, p in self.said if parse_down_topic(t) == (device_id, Down.DESIRED)]
        return decode(Desired, topics[-1]) if topics else None

    def telemetry(self, device: Any, body: Any) -> None:
        number = self.sent[device.id] = self.sent.get(device.id, 0) + 1
        batch = TelemetryBatch(
            epoch=EPOCH, base=number, records=(Record(sequence=number, body=body),)
        )
        self.takes(Inbound(up_topic(device.id, Up.TELEMETRY), encode(batch)))

    def tables(self) -> dict[str, Any]:
        with self.database.engine.connect() as connection:
            return {
                table.name: [
                    {k: v for k, v in row.items() if k not in NOT_COMPARED}
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key)
                    ).mappings()
                ]
                for table in Base.metadata.sorted_tables
            }


def happen(world: World, luck: random.Random) -> None:
    """One thing, the same in every world that has had the same luck so far."""
    event = luck.choice(EVENTS)
    device = world.devices.get(f"d{luck.randrange(DEVICES_MAX)}")
    number = luck.randrange(100)
    if event == "join" and len(world.devices) < DEVICES_MAX:
        name = f"d{len(world.devices)}"
        labels = {"site": SITES[number % 2]}
        world.devices[name] = world.make_device(name, labels=labels)
        world.takes(world.devices[name].hello())
    elif event == "start":
        _start(world, luck)
    elif event in ("pause", "resume", "abort"):
        _change(world, event, number)
    elif event == "label_examples":
        _label_examples(world, luck)
    elif event == "wait":
        world.clock.advance(float(number))
    elif device is not None:
        _device(world, device, event, number)
    world.tick()
    world.clock.advance(1)


EVENTS = (
    *("join", "start", "pause", "resume", "abort", "wait", "wait", "relabel", "hello", "offline"),
    *("obey", "obey", "obey", "obey", "refuse", "window", "window", "sample", "label_examples"),
)


def _device(world: World, device: Any, event: str, number: int) -> None:
    if event in ("obey", "refuse"):
        desired = world.desired(device.id)
        if desired is not None:
            world.takes(device.obeys(desired, "crashed" if event == "refuse" else ""))
    elif event == "hello":
        device.labels = {"site": SITES[number % 2]}
        world.takes(device.hello())
    elif event == "offline":
        presence = Presence(epoch=EPOCH, online=number % 4 == 0)
        world.takes(Inbound(up_topic(device.id, Up.PRESENCE), encode(presence)))
    elif event == "relabel":
        with world.database.writing() as session:
            row = session.get(Device, device.id)
            assert row is not None
            row.labels = {"site": SITES[number % 2]}
            row.change = device_store.next_change(session)
    else:
        _observe(world, device, event, number)


def _observe(world: World, device: Any, event: str, number: int) -> None:
    slot = next(iter(device.slots), None)
    if slot is None or slot.champion is None or slot.previous is None:
        return
    if event == "window":
        compared = Comparison(shadow=slot.previous, count=40, disagreements=number * 40 // 100)
        window = WindowSummary(
            slot="main",
            version=slot.champion,
            started_at=0.0,
            ended_at=1.0,
            count=40,
            latency_p50_us=1.0,
            latency_p95_us=1.0,
            comparison=compared,
        )
        world.telemetry(device, window)
    else:
        sample = Sample(
            slot="main",
            version=slot.champion,
            taken_at=0.0,
            reference=f"{device.id}-{number}",
            features=(0.0,),
            prediction=number % 2,
            confidence=0.5,
            shadow=slot.previous,
            shadow_prediction=number // 2 % 2,
        )
        world.telemetry(device, sample)


def _start(world: World, luck: random.Random) -> None:
    version = luck.choice(world.versions)
    terms = RolloutTerms(soak_s=luck.choice([0, 5]), deadline_s=30, min_compared=40)
    request = RolloutRequest(
        name=version.name,
        version=version.version,
        selector=luck.choice(["all", "site=a", "site=b", "device!=d0"]),
        waves=luck.choice([("1", "100%"), ("100%",), ("2", "50%")]),
        terms=terms,
    )
    try:
        world.parts.services.rollouts.start(request)
    except ControllerError:
        return


def _change(world: World, event: str, number: int) -> None:
    with world.database.reading() as session:
        ids = session.scalars(select(Rollout.id).order_by(Rollout.id)).all()
    if not ids:
        return
    rollouts = world.parts.services.rollouts
    chosen = ids[-1 - number % min(2, len(ids))]
    try:
        if event == "abort" and number < 40:
            rollouts.abort(chosen, "asked to")
        elif event == "pause" and number < 60:
            rollouts.pause(chosen)
        else:
            rollouts.resume(chosen)
    except ControllerError:
        return


def _label_examples(world: World, luck: random.Random) -> None:
    with world.database.reading() as session:
        ids = session.scalars(select(SampleRow.id).order_by(SampleRow.id)).all()
    given = [GivenLabel(sample_id=i, label=luck.choice(["still", "walk"])) for i in ids[-5:]]
    world.parts.services.labelling.put(given, "people")


@pytest.fixture
def template(tmp_path: Path, tiny_model: Any, draft_toml: str) -> Path:
    """A data directory in which versions 1, 2 and 3 are published."""
    config = ControllerConfig(data_dir=tmp_path / "template")
    config.data_dir.mkdir()
    database = Database(config.database, durable=False)
    artifacts = LocalArtifactStore(config.artifacts_dir)
    parts = composition.build(
        config, database, _Silent(), SimulatedClock(), artifacts, LocalExecutor()
    )
    for seed, version in enumerate("123"):
        parts.services.publishing.publish_files(tiny_model(seed), "tiny", version, draft_toml, None)
    database.close()
    return config.data_dir


class _Silent:
    def publish(self, topic: str, payload: bytes) -> bool:
        return True


@given(seed=st.integers(0, 2**32))
@example(seed=0)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_reconciler_that_remembers_does_what_one_that_forgets_does(
    template: Path, make_device: Any, seed: int
) -> None:
    with TemporaryDirectory() as made:
        worlds = []
        for forgets in (False, True):
            directory = Path(made) / str(forgets)
            shutil.copytree(template, directory)
            database = Database(
                ControllerConfig(data_dir=directory).database, migrate=False, durable=False
            )
            worlds.append((World(directory, database, make_device, forgets), random.Random(seed)))
        for _ in range(50):
            for world, luck in worlds:
                happen(world, luck)
            remembering, forgetting = (world for world, _ in worlds)
            assert remembering.said == forgetting.said
        assert remembering.tables() == forgetting.tables()
        for world, _ in worlds:
            world.database.close()
