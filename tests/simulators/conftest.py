"""A small run made by hand, as a run leaves it on disk; the seeds that are played in every test."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from edgeloop_controller.store import tables
from edgeloop_simulators.record import database_of, run_directory
from edgeloop_simulators.truth import Answer, Mark

START = 1000.0
V1, V2, V3 = "1" * 64, "2" * 64, "3" * 64
DEVICES = ("d0", "d1", "d2", "d3")
SEEDS = 1000
"""Virtual worlds that must keep all laws, played by test_virtual_seeds*.py, a half each."""
SEEDS_A_TEST = 25
CHANGED_AT, RETRAINED_AT, BAD_AT, END = 30.0, 60.0, 80.0, 100.0


def answer(at: float, device: str, digest: str, correct: bool, phase: str, row: int) -> Answer:
    return Answer(
        at=START + at,
        device=device,
        reference=f"r0:{row}-{row + 10}",
        phase=phase,
        broken=False,
        truth="A",
        label="A" if correct else "B",
        confidence=0.9,
        version=digest[0],
        manifest_digest=digest,
    )


def answers() -> list[Answer]:
    """v1: 9 of 10 right before, 4 of 10 after; v2: 9 of 10 right; rows 0 to 9 were trained on."""
    made = []
    for step in range(int(END)):
        retrained = step >= RETRAINED_AT
        phase = "before" if step < CHANGED_AT else "after"
        right_of_ten = 4 if phase == "after" and not retrained else 9
        for number, device in enumerate(DEVICES):
            correct = (step + number) % 10 < right_of_ten
            bad = step >= BAD_AT and step < BAD_AT + 5 and device == "d0"
            digest = V3 if bad else V2 if retrained else V1
            made.append(answer(step, device, digest, correct and not bad, phase, 100 + step * 10))
    return made


def marks() -> list[Mark]:
    def published(at: float, what: str, digest: str) -> Mark:
        data = {"is": what, "manifest_digest": digest, "version": digest[0]}
        return Mark(START + at, "version.published", f"v{digest[0]}", data)

    return [
        Mark(START, "run.started", "A run by hand", {"phases": ["right", "left"]}),
        published(1, "first", V1),
        Mark(
            START + 15,
            "sensor.broken",
            "gyroscope-x of d3 breaks",
            {"device": "d3", "sensor": "gyroscope-x", "fault": "stuck"},
        ),
        Mark(START + CHANGED_AT, "world.changed", "right → left", {"devices": list(DEVICES)}),
        published(55, "retrained", V2),
        published(BAD_AT - 2, "permuted", V3),
        Mark(START + END, "run.ended", "the run ends"),
    ]


def alarm(at: float, scope: str, key: str, cause: str, digest: str = V1, sensor: str | None = None):
    return tables.DriftAlarm(
        slot="main",
        manifest_digest=digest,
        scope=scope,
        key=key,
        cause=cause,
        sensor=sensor,
        score=4.0,
        threshold=2.0,
        raised_at=START + at,
        cleared_at=None,
        evidence={},
    )


def _version(digest: str, at: float) -> tables.Version:
    return tables.Version(
        manifest_digest=digest,
        name="exercise",
        version=digest[0],
        artifact_digest=digest,
        artifact_size_bytes=1,
        manifest_size_bytes=1,
        published_at=START + at,
        training_run_id=None,
    )


def _device(name: str) -> tables.Device:
    return tables.Device(
        id=name,
        first_seen_at=START,
        last_seen_at=START + END,
        online=True,
        epoch="e" * 16,
        state_sequence=1,
        revision_seen=1,
        agent_labels={},
        labels={},
        inventory={},
        bytes_up=5000,
    )


def _window(device: str, sequence: int, digest: str) -> tables.Window:
    return tables.Window(
        device_id=device,
        epoch="e" * 16,
        sequence=sequence,
        received_at=START,
        slot="main",
        manifest_digest=digest,
        device_started_at=START + sequence,
        device_ended_at=START + sequence + 1,
        count=10,
        errors=0,
        nonfinite=0,
        latency_p50_us=1,
        latency_p95_us=1,
        memory_bytes=1,
        body={},
        sketches=None,
    )


def _sample(device: str, sequence: int, digest: str) -> tables.Sample:
    return tables.Sample(
        device_id=device,
        epoch="e" * 16,
        sequence=sequence,
        received_at=START,
        slot="main",
        manifest_digest=digest,
        device_taken_at=START + sequence,
        reference=f"r0:{sequence * 10}-{sequence * 10 + 10}",
        features=b"",
        prediction=0,
        confidence=0.9,
        shadow_digest=None,
        shadow_prediction=None,
    )


def _rollout(number: int, digest: str, status: str, at: float) -> tables.Rollout:
    return tables.Rollout(
        id=number,
        manifest_digest=digest,
        slot="main",
        selector="all",
        waves=["1", "100%"],
        terms={},
        status=status,
        wave=0,
        wave_started_at=START + at,
        started_at=START + at,
        ended_at=START + at + 5,
        verdict="disagrees with 2 on 98%" if status == "halted" else "",
        training_run_id=None,
    )


def _member(rollout: int, device: str, at: float, phase: str, wave: int) -> tables.RolloutMember:
    return tables.RolloutMember(
        rollout_id=rollout,
        device_id=device,
        wave=wave,
        phase=phase,
        offered_at=START + at,
        settled_at=START + at + 3,
        before_digest=None,
    )


@pytest.fixture
def handmade_run(tmp_path: Path) -> Path:
    """The `--out` directory of a run: 4 devices, one retraining, one bad version on one device."""
    out = tmp_path / "out"
    directory = run_directory(out)
    database_of(out).parent.mkdir(parents=True)
    lines = "".join(json.dumps(asdict(one)) + "\n" for one in answers())
    (directory / "answers.jsonl").write_text(lines)
    (directory / "marks.jsonl").write_text("".join(json.dumps(asdict(m)) + "\n" for m in marks()))
    trained = {V1: ["r0:0-10"], V2: ["r0:0-10"], V3: ["r0:0-10"]}
    (directory / "trained_on.json").write_text(json.dumps(trained))
    outboxes = [
        {"device": d, "epoch": "e" * 16, "appended": 22, "held": 2, "dropped": 0} for d in DEVICES
    ]
    (directory / "outboxes.json").write_text(json.dumps(outboxes))
    engine = create_engine(f"sqlite:///{database_of(out)}")
    tables.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([_version(V1, 1), _version(V2, 55), _version(V3, BAD_AT - 2)])
        session.add_all(_device(name) for name in DEVICES)
        session.flush()
        session.add_all(_window(d, s, V1) for d in DEVICES for s in range(1, 17))
        session.add_all(_sample(d, s, V1) for d in DEVICES for s in range(17, 21))
        session.add(alarm(20, "device", "d3", "sensor_fault", sensor="gyroscope-x"))
        session.add(alarm(42, "fleet", "*", "world_changed"))
        session.add_all(
            [_rollout(1, V1, "done", 2), _rollout(2, V2, "done", 56), _rollout(3, V3, "halted", 79)]
        )
        session.flush()
        for number, at in ((1, 2.0), (2, 56.0)):
            session.add_all(
                _member(number, d, at + 3 * min(i, 1), "committed", min(i, 1))
                for i, d in enumerate(DEVICES)
            )
        session.add(_member(3, "d0", 79, "withdrawn", 0))
        session.commit()
    engine.dispose()
    return out


@pytest.fixture
def quiet() -> Iterator[None]:
    """What goes wrong in these worlds is what they are for; keeping the words costs a third."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def seeds_played() -> range:
    """Those that break no law, or a test of theirs fails."""
    return range(SEEDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`seed_group`: the module's HALF of the seeds, some at a time."""
    if "seed_group" in metafunc.fixturenames:
        half = SEEDS // 2
        seeds = range(metafunc.module.HALF * half, (metafunc.module.HALF + 1) * half)
        groups = [seeds[at : at + SEEDS_A_TEST] for at in range(0, half, SEEDS_A_TEST)]
        names = [f"{group[0]}-{group[-1]}" for group in groups]
        metafunc.parametrize("seed_group", groups, ids=names)
