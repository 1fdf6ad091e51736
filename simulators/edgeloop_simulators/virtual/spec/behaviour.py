"""What a model does in a virtual runner: the port behind which a table of real inference, or a few
numbers, stand.

Invariants: a behaviour is shared by all devices and holds no state of theirs; what it answers
depends on its arguments alone.
"""

from dataclasses import dataclass
from typing import Protocol

from edgeloop_protocol.messages import Histogram
from edgeloop_simulators.virtual.kernel.streams import Luck


@dataclass(frozen=True)
class Surroundings:
    """What a device's sensors see. `stream` names recordings or a generator; `phases` are times
    from which on the world, for this device, is another: (at_s, phase)."""

    stream: str = "default"
    phases: tuple[tuple[float, str], ...] = ()
    blend_s: float = 0.0
    """How long each phase takes to come in: meanwhile examples are of it and of the one before, its
    share growing evenly. 0: at once."""
    broken_sensor: tuple[float, str] | None = None
    """(from when on, which sensor): it shows nothing any more."""
    swapped_sensors: tuple[float, str, str] | None = None
    """(from when on, which two): each shows what the other should; miswired ones."""

    def phase(self, at_s: float) -> str:
        """The phase at a time; `before` until the first."""
        current = "before"
        for begins_s, name in self.phases:
            if at_s >= begins_s:
                current = name
        return current

    def mixture(self, at_s: float) -> tuple[str, str, float]:
        """The phase that goes, the one that comes, and the share of the latter, in [0, 1]; the
        same phase twice where nothing comes in. What is so from the beginning came in before."""
        before, current, began_s = "before", "before", 0.0
        for begins_s, name in self.phases:
            if at_s >= begins_s:
                before, current, began_s = current, name, begins_s
        share = (at_s - began_s) / self.blend_s if self.blend_s > 0 and began_s > 0 else 1.0
        return (before, current, share) if share < 1.0 else (current, current, 1.0)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of `count` examples: what a window summary says, and what only the simulator
    knows (`right`)."""

    count: int
    right: int
    predictions: tuple[int, ...]
    confidence: Histogram
    features: tuple[Histogram, ...]
    nonfinite: int = 0
    errors: int = 0
    disagreements: int = 0
    """With the version in shadow, on the same examples."""


def added(one: Answers, other: Answers) -> Answers:
    """Of both; over the same bins."""
    return Answers(
        count=one.count + other.count,
        right=one.right + other.right,
        predictions=_sum(one.predictions, other.predictions),
        confidence=_sum(one.confidence, other.confidence),
        features=tuple(_sum(a, b) for a, b in zip(one.features, other.features, strict=True)),
        nonfinite=one.nonfinite + other.nonfinite,
        errors=one.errors + other.errors,
        disagreements=one.disagreements + other.disagreements,
    )


def _sum(one: Histogram, other: Histogram) -> Histogram:
    return tuple(map(int.__add__, one, other))


@dataclass(frozen=True, slots=True)
class Answered:
    """One example in full, for a sample."""

    reference: str
    features: tuple[float, ...]
    prediction: int
    confidence: float
    shadow_prediction: int | None


class Behaviour(Protocol):
    """`latency_us` is the p95 of one inference on a device of speed 1, `memory_bytes` the runner's
    resident size, `load_s` what start and self-test take."""

    @property
    def latency_us(self) -> float: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def load_s(self) -> float: ...

    def self_test_problem(self, architecture: str) -> str:
        """Why the golden examples fail on this architecture; empty when they pass."""

    def crashes_after(self, architecture: str) -> int | None:
        """Examples after which the process dies; None: it does not."""

    def hangs_after(self, architecture: str) -> int | None: ...

    def answer(
        self,
        seen: Surroundings,
        at_s: float,
        count: int,
        shadow: "Behaviour | None",
        luck: Luck,
    ) -> Answers: ...

    def sample(
        self, seen: Surroundings, at_s: float, shadow: "Behaviour | None", luck: Luck
    ) -> Answered | None:
        """None: the example drawn was given no answer, and is no sample."""
