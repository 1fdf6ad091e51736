"""The worlds that `explore` looks through: a small fleet, a few versions, and all kinds of faults.

Invariants: a world is decided by its seed alone; every fault kind occurs among any few dozen
seeds; each world's script has one rollout at least that has time to end after the last fault.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Final

from edgeloop_protocol.manifest import (
    Artifact,
    Feature,
    Manifest,
    Requirements,
    TensorSpec,
)
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.models.synthetic import SyntheticModel
from edgeloop_simulators.virtual.network.broker_profiles import PROFILES
from edgeloop_simulators.virtual.spec.faults import Fault, FaultKind, Rates, draw
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceClass,
    DeviceSpec,
    EndChallengers,
    EndRollouts,
    Link,
    ModelSpec,
    Publish,
    SetLabels,
    StartChallenger,
    StartRollout,
    Step,
    WorldSpec,
)

SITES: Final = ("north", "south")
ARCHITECTURES: Final = ("x86_64", "aarch64")
FAULTS_END_S: Final = 400.0
DURATION_S: Final = 1100.0
SETTLES_S: Final = 60.0
"""Longer than any message is underway (DELAY is 30 s at most)."""
ARTIFACT_BYTES: Final = (2_000, 30_000)
RATES: Final[Rates] = {
    FaultKind.DROP: 0.5,
    FaultKind.DUPLICATE: 0.5,
    FaultKind.REORDER: 0.3,
    FaultKind.DELAY: 0.3,
    FaultKind.PARTITION: 0.5,
    FaultKind.PARTITION_UP: 0.3,
    FaultKind.PARTITION_DOWN: 0.3,
    FaultKind.BROKER_RESTART: 0.4,
    FaultKind.BROKER_WIPE: 0.2,
    FaultKind.RETAINED_LOST: 0.1,
    FaultKind.DUPLICATE_CLIENT_ID: 0.2,
    FaultKind.POISON: 0.4,
    FaultKind.OVERSIZE: 0.2,
    FaultKind.SLOW_DOWNLOAD: 0.4,
    FaultKind.STALLED_DOWNLOAD: 0.3,
    FaultKind.CORRUPT_DOWNLOAD: 0.8,
    FaultKind.MALICIOUS_SERVER: 0.7,
    FaultKind.PROCESS_KILL: 1.0,
    FaultKind.POWER_CUT: 1.0,
    FaultKind.TORN_WRITE: 0.6,
    FaultKind.DISK_FULL: 0.4,
    FaultKind.IO_ERROR: 0.4,
    FaultKind.BIT_FLIP: 0.3,
    FaultKind.CLOCK_1970: 0.2,
    FaultKind.CLOCK_FUTURE: 0.2,
    FaultKind.CLOCK_JUMP: 0.3,
    FaultKind.MODEL_CRASH: 0.12,
    FaultKind.MODEL_HANG: 0.12,
    FaultKind.MODEL_NAN: 0.12,
    FaultKind.MODEL_SLOW: 0.12,
    FaultKind.MODEL_WRONG: 0.2,
    FaultKind.CONTROLLER_KILL: 0.5,
    FaultKind.CONTROLLER_FAILOVER: 0.3,
    FaultKind.RUNNER_KILL: 0.8,
}
CHALLENGED_SHARE: Final = 0.35
DEADLINES_S: Final = (40.0, 120.0)
FAILED_FRACTIONS: Final = (0.25, 0.6)
TERMS: Final = {
    "soak_s": 5.0,
    "min_compared": 20,
    "min_watched": 20,
    "probation": {"min_s": 10.0, "min_examples": 20, "max_s": 90.0},
}


@dataclass(frozen=True)
class Drawn:
    spec: WorldSpec
    faults: tuple[Fault, ...]


def draw_world(seed: int) -> Drawn:
    luck, terms_luck = Streams(seed).stream("world"), Streams(seed).stream("terms")
    devices = tuple(_device(number, luck) for number in range(luck.randint(2, 5)))
    models = tuple(_model(number, luck) for number in range(1, luck.randint(2, 3) + 1))
    spec = WorldSpec(
        devices=devices,
        models=models,
        script=_with_challenger(
            _script(models, devices, luck, terms_luck), Streams(seed).stream("challengers")
        ),
        faults_end_s=FAULTS_END_S,
        duration_s=DURATION_S,
        settles_s=SETTLES_S,
        agent=AgentTiming(
            progress_s=5.0,
            window_s=30.0,
            examples_per_s=terms_luck.choice((1.0, 2.0, 5.0)),
            heartbeat_timeout_s=20.0,
            outbox_max_bytes=luck.choice((3_000, 1 << 20)),
        ),
        controller=ControllerTiming(ingest_s=3.0, tick_s=15.0),
        broker=luck.choice(sorted(PROFILES)),
    )
    faults = draw(
        RATES,
        Streams(seed).stream("faults"),
        devices=[device.id for device in devices],
        sites=SITES,
        versions=len(models),
        until_s=FAULTS_END_S,
    )
    return Drawn(spec, faults)


def _device(number: int, luck: random.Random) -> DeviceSpec:
    kind = DeviceClass(
        name=luck.choice(("fast", "slow")),
        architecture=luck.choice(ARCHITECTURES),
        disk_bytes=1 << 22,
        cpu_speed=luck.choice((0.5, 1.0, 2.0)),
        link=Link(
            latency_s=luck.choice((0.01, 0.1, 0.5)),
            bytes_per_s=luck.choice((2_000.0, 50_000.0, 1_000_000.0)),
            loss=luck.choice((0.0, 0.0, 0.1)),
        ),
    )
    return DeviceSpec(
        id=f"device-{number + 1}",
        site=luck.choice(SITES),
        kind=kind,
        labels={"ring": luck.choice(("canary", "all"))},
    )


def _model(number: int, luck: random.Random) -> ModelSpec:
    artifact = luck.randbytes(luck.randint(*ARTIFACT_BYTES))
    return ModelSpec(
        manifest=manifest_of("vision", str(number), artifact),
        artifact=artifact,
        behaviour=SyntheticModel(load_s=luck.choice((0.2, 2.0))),
    )


def manifest_of(
    name: str, version: str, artifact: bytes, model: SyntheticModel | None = None
) -> Manifest:
    """Of a model that is only numbers: what an agent and the controller must know of it."""
    shape = model or SyntheticModel()
    return Manifest(
        name=name,
        version=version,
        artifact=Artifact(
            digest=hashlib.sha256(artifact).hexdigest(), size_bytes=len(artifact), opset=17
        ),
        inputs=(TensorSpec(name="input", dtype="float32", shape=(None, shape.features)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(None, shape.labels)),),
        scores_output="scores",
        features=tuple(
            Feature(name=f"feature_{place}", sensor=f"sensor_{place}")
            for place in range(shape.features)
        ),
        labels=tuple(f"label_{place}" for place in range(shape.labels)),
        requires=Requirements(),
    )


def _script(
    models: tuple[ModelSpec, ...],
    devices: tuple[DeviceSpec, ...],
    luck: random.Random,
    terms_luck: random.Random,
) -> tuple[Step, ...]:
    steps: list[Step] = []
    at_s = 6.0
    for number in range(len(models)):
        steps.append(Publish(at_s, number))
        steps.append(
            StartRollout(
                at_s + 1.0,
                number,
                selector="all",
                waves=luck.choice((("1", "50%", "100%"), ("1", "100%"), ("100%",))),
                terms={
                    **TERMS,
                    "max_failed_fraction": terms_luck.choice(FAILED_FRACTIONS),
                    "deadline_s": terms_luck.choice(DEADLINES_S),
                },
            )
        )
        if terms_luck.random() < 0.15:
            steps.append(EndRollouts(at_s + terms_luck.uniform(6.0, 25.0), "abort"))
        if luck.random() < 0.15:
            action_at_s = at_s + luck.uniform(5.0, 100.0)
            steps.append(EndRollouts(action_at_s, luck.choice(("abort", "pause"))))
            steps.append(EndRollouts(action_at_s + 60.0, "resume"))
        at_s += luck.uniform(100.0, 220.0)
    if luck.random() < 0.3:
        device = luck.choice(devices).id
        steps.append(SetLabels(luck.uniform(10.0, 300.0), device, {"ring": "canary"}))
    return tuple(sorted(steps, key=lambda step: step.at_s))


def _with_challenger(script: tuple[Step, ...], luck: random.Random) -> tuple[Step, ...]:
    """In some worlds a version that is published runs in shadow, and is taken back in some of
    these; drawn apart, so that the other steps of a seed are as they would be without."""
    if luck.random() >= CHALLENGED_SHARE:
        return script
    published = luck.choice([step for step in script if isinstance(step, Publish)])
    began_s = published.at_s + luck.uniform(1.0, 120.0)
    steps: list[Step] = [
        StartChallenger(
            began_s,
            published.model,
            selector=luck.choice(("all", "ring=canary")),
            cpu_fraction=luck.choice((0.001, 0.1)),
        )
    ]
    if luck.random() < 0.3:
        steps.append(EndChallengers(began_s + luck.uniform(20.0, 200.0)))
    return tuple(sorted((*script, *steps), key=lambda step: step.at_s))
