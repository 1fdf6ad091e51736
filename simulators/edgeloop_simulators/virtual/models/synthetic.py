"""Models of a few numbers: what is right by what chance, how fast, how they break.

Invariants: as every behaviour's (`spec.behaviour`); integers only in what is answered, so that
the same seed gives the same answers on every machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeloop_protocol.messages import Histogram
from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.spec.behaviour import Answered, Answers, Behaviour, Surroundings


@dataclass(frozen=True)
class SyntheticModel:
    """`accuracy` by phase; `self_test_fails_on`, `crashes_on`: architectures."""

    accuracy: Mapping[str, float] = field(default_factory=lambda: {"before": 0.9})
    labels: int = 4
    features: int = 2
    bins: int = 10
    shift: Mapping[str, int] = field(default_factory=dict)
    """By how many bins a phase moves the features: drift."""
    latency_us: float = 3000.0
    memory_bytes: int = 40 << 20
    load_s: float = 0.5
    crash_after: int | None = None
    hang_after: int | None = None
    nonfinite_share: float = 0.0
    agrees: float = 0.95
    """With the version in shadow."""
    crashes_on: frozenset[str] = frozenset()
    self_test_fails_on: frozenset[str] = frozenset()

    def self_test_problem(self, architecture: str) -> str:
        if architecture in self.self_test_fails_on:
            return "golden example 1: the outputs differ by 0.31, the tolerance is 0.001"
        return ""

    def crashes_after(self, architecture: str) -> int | None:
        if self.crashes_on and architecture not in self.crashes_on:
            return None
        return self.crash_after

    def hangs_after(self, architecture: str) -> int | None:  # noqa: ARG002 - the port's
        return self.hang_after

    def answer(
        self,
        seen: Surroundings,
        at_s: float,
        count: int,
        shadow: Behaviour | None,
        luck: Luck,
    ) -> Answers:
        nonfinite = _share(count, self.nonfinite_share, luck)
        given = count - nonfinite
        phase = seen.phase(at_s)
        right = _share(given, self.accuracy.get(phase, 0.5), luck)
        agreed = _share(given, self.agrees, luck) if shadow is not None else given
        return Answers(
            count=given,
            right=right,
            predictions=_spread(given, self.labels, luck.randrange(self.labels)),
            confidence=_spread(given, self.bins, self.bins - 1),
            features=tuple(
                _spread(given, self.bins, self.shift.get(phase, 0) + number)
                for number in range(self.features)
            ),
            nonfinite=nonfinite,
            disagreements=given - agreed,
        )

    def sample(
        self, seen: Surroundings, at_s: float, shadow: Behaviour | None, luck: Luck
    ) -> Answered:
        phase = seen.phase(at_s)
        prediction = luck.randrange(self.labels)
        return Answered(
            reference=f"{seen.stream}/{phase}/{luck.randrange(10**6)}",
            features=tuple(
                float(self.shift.get(phase, 0) + luck.randrange(self.bins))
                for _ in range(self.features)
            ),
            prediction=prediction,
            confidence=luck.randrange(50, 100) / 100,
            shadow_prediction=None if shadow is None else prediction,
        )


def _share(count: int, share: float, luck: Luck) -> int:
    """How many of `count`: the expected number, rounded up or down by luck."""
    expected = count * share
    whole = int(expected)
    return min(count, whole + (luck.random() < expected - whole))


def _spread(count: int, places: int, first: int) -> Histogram:
    """As evenly as it goes, what is left over from `first` on."""
    each, left = divmod(count, places)
    return tuple(each + ((place - first) % places < left) for place in range(places))
