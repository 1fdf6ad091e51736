"""Made-up sensors and models that answer them: the source of a world without recordings.

A reading lies in one of ten bins, evenly in the phase `before`; a phase tilts a sensor's readings
up or down; a broken sensor shows its lowest bin alone. A model is right by a share of its own in
each phase.

Invariants: as every behaviour's (`spec.behaviour`); whole numbers and fractions alone decide
what is answered, so that the same seed gives the same answers on every machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from edgeloop_protocol.manifest import (
    Artifact,
    Baseline,
    Binned,
    DriftThresholds,
    Feature,
    Manifest,
    Requirements,
    TensorSpec,
)
from edgeloop_protocol.messages import Histogram
from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.spec.behaviour import (
    Answered,
    Answers,
    Behaviour,
    Surroundings,
    added,
)

Goes = Literal["crash", "hang", "nan", "slow", "wrong", "self_test"]

BINS: Final = 10
SHARES_KEPT_MAX: Final = 256
TILT_MAX: Final = 0.9
"""Of a bin's share that goes from the one end to the other at a shift of 1."""
NONFINITE_SHARE: Final = 0.05
SLOWER: Final = 50.0
WRONG_AGREES: Final = 0.1
BROKEN_KEEPS: Final = 0.6
"""Of the accuracy, where a sensor is broken."""
THRESHOLDS: Final = DriftThresholds(examples=600, device=0.15, fleet=0.08, sensor=0.5)


@dataclass(frozen=True)
class Sensors:
    """`shifts`: phase → sensor → -1 to 1; what is absent is not shifted."""

    names: tuple[str, ...]
    labels: int
    shifts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class GeneratedModel:
    """A Behaviour. `accuracy_in`: in other phases than `accuracy` stands for; `goes_on`: the
    architectures on which it crashes, hangs or fails its self-test; none: all."""

    sensors: Sensors
    accuracy: float = 0.9
    accuracy_in: Mapping[str, float] = field(default_factory=dict)
    agrees: float = 0.95
    latency_us: float = 3000.0
    memory_bytes: int = 40 << 20
    load_s: float = 0.5
    goes: Goes | None = None
    goes_on: frozenset[str] = frozenset()
    goes_after: int = 25

    def __post_init__(self) -> None:
        if self.goes == "slow":
            object.__setattr__(self, "latency_us", self.latency_us * SLOWER)

    def is_bad_on(self, architecture: str) -> bool:
        return self.goes is not None and (not self.goes_on or architecture in self.goes_on)

    def self_test_problem(self, architecture: str) -> str:
        if self.goes == "self_test" and self.is_bad_on(architecture):
            return "golden example 1: the outputs differ by 0.31, the tolerance is 0.001"
        return ""

    def crashes_after(self, architecture: str) -> int | None:
        bad = self.goes == "crash" and self.is_bad_on(architecture)
        return self.goes_after if bad else None

    def hangs_after(self, architecture: str) -> int | None:
        bad = self.goes == "hang" and self.is_bad_on(architecture)
        return self.goes_after if bad else None

    def answer(
        self,
        seen: Surroundings,
        at_s: float,
        count: int,
        shadow: Behaviour | None,
        luck: Luck,
    ) -> Answers:
        before, phase, share = seen.mixture(at_s)
        late = apportioned(count, (1.0 - share, share), luck)[1] if share < 1.0 else count
        answers = self._in_phase(seen, at_s, phase, late, shadow, luck)
        if late == count:
            return answers
        return added(answers, self._in_phase(seen, at_s, before, count - late, shadow, luck))

    def sample(
        self, seen: Surroundings, at_s: float, shadow: Behaviour | None, luck: Luck
    ) -> Answered:
        phase = seen.phase(at_s)
        prediction = luck.randrange(self.sensors.labels)
        return Answered(
            reference=f"{seen.stream}/{phase}/{luck.randrange(10**6)}",
            features=tuple(luck.randrange(100 * BINS) / 100 for _ in self.sensors.names),
            prediction=prediction,
            confidence=luck.randrange(50, 100) / 100,
            shadow_prediction=None if shadow is None else prediction,
        )

    def _in_phase(
        self,
        seen: Surroundings,
        at_s: float,
        phase: str,
        count: int,
        shadow: Behaviour | None,
        luck: Luck,
    ) -> Answers:
        broken = seen.broken_sensor
        dead = broken[1] if broken is not None and at_s >= broken[0] else None
        nonfinite = _some(count, NONFINITE_SHARE, luck) if self.goes == "nan" else 0
        given = count - nonfinite
        right = _some(given, self._right_share(phase, dead), luck)
        agrees = WRONG_AGREES if self.goes == "wrong" else self.agrees
        agreed = given if shadow is None else _some(given, agrees, luck)
        return Answers(
            count=given,
            right=right,
            predictions=apportioned(given, (1 / self.sensors.labels,) * self.sensors.labels, luck),
            confidence=_confidence(given, right),
            features=tuple(self._readings(name, phase, dead, given, luck) for name in self.names),
            nonfinite=nonfinite,
            disagreements=given - agreed,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self.sensors.names

    def _right_share(self, phase: str, dead: str | None) -> float:
        if self.goes == "wrong":
            return 1 / self.sensors.labels
        share = self.accuracy_in.get(phase, self.accuracy)
        return share if dead is None else share * BROKEN_KEEPS

    def _readings(
        self, sensor: str, phase: str, dead: str | None, count: int, luck: Luck
    ) -> Histogram:
        if sensor == dead:
            return (count, *(0,) * (BINS - 1))
        shift = self.sensors.shifts.get(phase, {}).get(sensor, 0.0)
        return apportioned(count, tilted(shift), luck)


@lru_cache(maxsize=SHARES_KEPT_MAX)
def tilted(shift: float) -> tuple[float, ...]:
    """The share of each bin: even at 0, rising at 1, falling at -1."""
    slope = shift * TILT_MAX
    return tuple((1 + slope * (2 * place - BINS + 1) / (BINS - 1)) / BINS for place in range(BINS))


def apportioned(count: int, shares: Sequence[float], luck: Luck) -> tuple[int, ...]:
    """`count` dealt out by shares that sum to 1: systematic sampling, one draw (Madow 1949)."""
    start = luck.random()
    found, reached, total = [], 0, 0.0
    for share in shares[:-1]:
        total += share * count
        upto = min(count, int(total + start))
        found.append(upto - reached)
        reached = upto
    return (*found, count - reached)


def manifest_of(
    name: str,
    version: str,
    artifact: Artifact,
    sensors: Sensors,
    requires: Requirements,
) -> Manifest:
    """What agents and controller must know of a generated version, with its baseline."""
    even = Binned(edges=tuple(float(place) for place in range(1, BINS)), shares=tilted(0.0))
    return Manifest(
        name=name,
        version=version,
        artifact=artifact,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(None, len(sensors.names))),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(None, sensors.labels)),),
        scores_output="scores",
        features=tuple(Feature(name=name, sensor=name) for name in sensors.names),
        labels=tuple(f"answer-{number}" for number in range(1, sensors.labels + 1)),
        requires=requires,
        baseline=Baseline(
            count=10_000,
            features=(even,) * len(sensors.names),
            confidence=even,
            predictions=(1 / sensors.labels,) * sensors.labels,
            thresholds=THRESHOLDS,
        ),
    )


def _some(count: int, share: float, luck: Luck) -> int:
    return apportioned(count, (share, 1.0 - share), luck)[0] if count else 0


def _confidence(count: int, right: int) -> Histogram:
    """Right answers are sure, wrong ones half so."""
    bins = [0] * BINS
    bins[BINS - 1] += right
    bins[BINS // 2] += count - right
    return tuple(bins)
