"""One window of a runner in virtual time: what its answers come to, and what it says of them.

Invariant: a summary holds what a device can know; `right` stays in here, for those who look.
"""

from dataclasses import dataclass

from edgeloop_protocol.messages import Comparison, VersionRef, WindowSummary
from edgeloop_simulators.virtual.spec.behaviour import Answers, Behaviour


@dataclass(slots=True)
class Window:
    """What one window has come to; `right` is the truth that no device knows."""

    started_at: float
    count: int = 0
    right: int = 0
    errors: int = 0
    nonfinite: int = 0
    disagreements: int = 0
    predictions: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()
    features: tuple[tuple[int, ...], ...] = ()

    def add(self, answers: Answers) -> None:
        self.count += answers.count
        self.right += answers.right
        self.errors += answers.errors
        self.nonfinite += answers.nonfinite
        self.disagreements += answers.disagreements
        if not self.predictions:
            self.predictions = answers.predictions
            self.confidence, self.features = answers.confidence, answers.features
            return
        self.predictions = _sum(self.predictions, answers.predictions)
        self.confidence = _sum(self.confidence, answers.confidence)
        pairs = zip(self.features, answers.features, strict=True)
        self.features = tuple(_sum(ours, more) for ours, more in pairs)

    def summary(
        self,
        slot: str,
        version: VersionRef,
        behaviour: Behaviour,
        latency_us: float,
        shadow: VersionRef | None,
        ended_at: float,
    ) -> WindowSummary:
        """`latency_us` is the p95; `shadow`: with whom it was compared; times of the device's
        clock."""
        return WindowSummary(
            slot=slot,
            version=version,
            started_at=self.started_at,
            ended_at=ended_at,
            count=self.count,
            errors=self.errors,
            nonfinite=self.nonfinite,
            latency_p50_us=latency_us / 2,
            latency_p95_us=latency_us,
            memory_bytes=behaviour.memory_bytes,
            predictions=self.predictions,
            confidence=self.confidence,
            features=self.features,
            comparison=Comparison(shadow=shadow, count=self.count, disagreements=self.disagreements)
            if shadow is not None
            else None,
        )


def _sum(ours: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int.__add__, ours, more))
