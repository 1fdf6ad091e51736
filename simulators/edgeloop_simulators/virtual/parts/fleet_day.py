"""A day of a large fleet: a first version in waves, a world that moves, a version retrained on it.

Virtual seconds, from midnight:

| 00:00 | the devices are switched on, within half an hour |
| 00:35 | version 1 is rolled out, in waves |
| 08:00 | what two sensors see begins to move, everywhere, within half an hour |
| then | the drift watch raises its alarm, the policy starts a run, people label samples |
| by evening | the version that came of the run is rolled out, in waves, and everywhere |

Everything but the edges is the real code: see docs/adr/0009-virtual-world.md. Sparse are the signs
of life and the windows of a serving runner (four hours), so that a day of 100,000 devices costs
minutes; a new version's first sign of life comes after 25 seconds.

Invariant: what happens on a device depends on its number and the seed, not on how many there are.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from edgeloop_controller.config import LimitsConfig
from edgeloop_controller.core.retraining import Acceptance, Policy, RolloutPlan
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_protocol.limits import KIB
from edgeloop_protocol.manifest import Artifact, Requirements
from edgeloop_simulators.scenario import Annotator
from edgeloop_simulators.virtual.models.generated import GeneratedModel, Sensors, manifest_of
from edgeloop_simulators.virtual.models.training import ScriptedTraining, ScriptedVersion
from edgeloop_simulators.virtual.spec.behaviour import Surroundings
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec
from edgeloop_simulators.virtual.spec.world import (
    AgentTiming,
    ControllerTiming,
    DeviceClass,
    DeviceSpec,
    Link,
    ModelSpec,
    Publish,
    StartRollout,
    WorldSpec,
)

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
JOINED_BY_S: Final = 0.5 * HOUR_S
ROLLOUT_AT_S: Final = JOINED_BY_S + 300.0
DRIFT_AT_S: Final = 8 * HOUR_S
DRIFT_COMES_WITHIN_S: Final = 0.5 * HOUR_S

MODEL: Final = "condition"
SITES: Final = 50
LABELS_MIN: Final = 20
SAMPLES_A_DAY: Final = 600
"""Of the whole fleet, for people to label."""
WINDOW_S: Final = 4 * HOUR_S
EXAMPLES_PER_S: Final = 1.0
MESSAGES_AT_ONCE: Final = 12
MESSAGES_AT_ONCE_MIN: Final = 20_000
FIRST_PROGRESS_S: Final = 25.0
"""By when a new version has had its 20 examples."""
WAVES: Final = ("1%", "10%", "100%")
TERMS: Final[Mapping[str, Any]] = {
    "soak_s": 600.0,
    "deadline_s": 3 * HOUR_S,
    "min_compared": 20,
    "probation": {"min_s": 20.0, "min_examples": 20, "max_s": 1800.0},
}
SENSORS: Final = Sensors(
    names=("vibration", "temperature", "current"),
    labels=4,
    shifts={"after": {"vibration": 0.9, "temperature": -0.9}},
)
CLASSES: Final = (
    DeviceClass("gateway", "x86_64", link=Link(0.02, 0.01, 1_000_000.0)),
    DeviceClass("camera", "aarch64", cpu_speed=0.5, link=Link(0.05, 0.03, 200_000.0)),
    DeviceClass("meter", "aarch64", cpu_speed=0.25, link=Link(0.3, 0.2, 20_000.0)),
)


def fleet_day(devices: int, tick_s: float = 30.0) -> WorldSpec:
    """`tick_s`: of the controller's reconciler."""
    return WorldSpec(
        devices=tuple(_device(number) for number in range(devices)),
        models=(_first(),),
        script=(
            Publish(ROLLOUT_AT_S - 60.0, 0),
            StartRollout(ROLLOUT_AT_S, 0, waves=WAVES, terms=TERMS),
        ),
        faults_end_s=0.0,
        duration_s=DAY_S,
        agent=AgentTiming(
            progress_s=WINDOW_S,
            first_progress_s=FIRST_PROGRESS_S,
            window_s=WINDOW_S,
            examples_per_s=EXAMPLES_PER_S,
            sample_fraction=min(0.001, SAMPLES_A_DAY / (devices * DAY_S * EXAMPLES_PER_S)),
            heartbeat_timeout_s=2.5 * WINDOW_S,
            cheap_outbox=True,
        ),
        controller=ControllerTiming(
            ingest_s=2.0,
            tick_s=tick_s,
            drift_s=900.0,
            retrain_s=300.0,
            laws_every_s=7200.0,
            limits=_limits(devices),
        ),
        joins_over_s=JOINED_BY_S,
        chunks_a_file=1,
        retraining=_retraining(),
    )


def _limits(devices: int) -> LimitsConfig:
    """A world's messages come a step at a time; a controller takes them as they come."""
    messages = max(MESSAGES_AT_ONCE_MIN, devices * MESSAGES_AT_ONCE)
    return LimitsConfig(inbox_max_messages=messages, inbox_max_bytes=messages * KIB)


def _device(number: int) -> DeviceSpec:
    return DeviceSpec(
        id=f"device-{number:06d}",
        site=f"site-{number % SITES:02d}",
        kind=CLASSES[number % len(CLASSES)],
        surroundings=_SURROUNDINGS,
    )


_SURROUNDINGS: Final = Surroundings(phases=((DRIFT_AT_S, "after"),), blend_s=DRIFT_COMES_WITHIN_S)


def _first() -> ModelSpec:
    content = b"version 1 of what the fleet runs\n" * 500
    behaviour = GeneratedModel(SENSORS, accuracy=0.9, accuracy_in={"after": 0.6})
    artifact = Artifact.model_validate(
        {"digest": _sha256(content), "size_bytes": len(content), "opset": 17}
    )
    manifest = manifest_of(MODEL, "1", artifact, SENSORS, Requirements())
    return ModelSpec(manifest, content, behaviour)


def _retraining() -> RetrainingSpec:
    behaviour = GeneratedModel(SENSORS, accuracy=0.9)
    return RetrainingSpec(
        policy=Policy(
            name="when-the-world-moves",
            model=MODEL,
            script=str(files("edgeloop_simulators") / "scenarios" / "machines" / "train.py"),
            min_labels=LABELS_MIN,
            cooldown_s=HOUR_S,
            timeout_s=2 * HOUR_S,
            acceptance=Acceptance(min_examples=5),
            rollout=RolloutPlan(waves=WAVES, terms=RolloutTerms.model_validate(TERMS)),
        ),
        training=ScriptedTraining((ScriptedVersion(behaviour),)),
        truth_of=_truth_of,
        annotator=Annotator(fraction=0.65, delay_s=900.0),
        duration_s=0.5 * HOUR_S,
    )


def _truth_of(_device_id: str, reference: str) -> str:
    """Any answer, always the same: no model is trained on it."""
    return f"answer-{1 + int(_sha256(reference.encode())[:8], 16) % SENSORS.labels}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
