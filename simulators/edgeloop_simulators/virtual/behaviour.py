"""What a model does in a virtual runner: the port behind which a table of real inference, or a few
numbers, stand.

Invariants: a behaviour is shared by all devices and holds no state of theirs; what it answers
depends on its arguments alone.
"""

import random
from dataclasses import dataclass
from typing import Protocol

from edgeloop_protocol.messages import Histogram


@dataclass(frozen=True)
class Surroundings:
    """What a device's sensors see. `stream` names recordings or a generator; `phases` are times
    from which on the world, for this device, is another: (at_s, phase)."""

    stream: str = "default"
    phases: tuple[tuple[float, str], ...] = ()
    broken_sensor: tuple[float, str] | None = None
    """(from when on, which sensor)."""

    def phase(self, at_s: float) -> str:
        """The phase at a time; `before` until the first."""
        current = "before"
        for begins_s, name in self.phases:
            if at_s >= begins_s:
                current = name
        return current


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
        luck: random.Random,
    ) -> Answers: ...

    def sample(
        self, seen: Surroundings, at_s: float, shadow: "Behaviour | None", luck: random.Random
    ) -> Answered: ...
