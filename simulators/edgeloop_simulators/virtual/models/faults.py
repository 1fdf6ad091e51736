"""A model that is bad by a fault: whatever behaviour it has, with one thing wrong.

Invariant: what is not broken is the inner behaviour's.
"""

from dataclasses import dataclass, replace
from typing import Final

from edgeloop_simulators.virtual.kernel.streams import Luck
from edgeloop_simulators.virtual.spec.behaviour import Answered, Answers, Behaviour, Surroundings
from edgeloop_simulators.virtual.spec.faults import FaultKind

KINDS: Final = frozenset(
    {
        FaultKind.MODEL_CRASH,
        FaultKind.MODEL_HANG,
        FaultKind.MODEL_NAN,
        FaultKind.MODEL_SLOW,
        FaultKind.MODEL_WRONG,
    }
)
CRASHES_AFTER: Final = 7
HANGS_AFTER: Final = 12
SLOWER: Final = 50.0
NONFINITE_EVERY: Final = 20
WRONG_AGREES: Final = 0.1


@dataclass(frozen=True)
class Broken:
    """`kind` is one of KINDS."""

    inner: Behaviour
    kind: FaultKind

    @property
    def latency_us(self) -> float:
        slower = SLOWER if self.kind is FaultKind.MODEL_SLOW else 1.0
        return self.inner.latency_us * slower

    @property
    def memory_bytes(self) -> int:
        return self.inner.memory_bytes

    @property
    def load_s(self) -> float:
        return self.inner.load_s

    def self_test_problem(self, architecture: str) -> str:
        return self.inner.self_test_problem(architecture)

    def crashes_after(self, architecture: str) -> int | None:
        if self.kind is FaultKind.MODEL_CRASH:
            return CRASHES_AFTER
        return self.inner.crashes_after(architecture)

    def hangs_after(self, architecture: str) -> int | None:
        if self.kind is FaultKind.MODEL_HANG:
            return HANGS_AFTER
        return self.inner.hangs_after(architecture)

    def answer(
        self,
        seen: Surroundings,
        at_s: float,
        count: int,
        shadow: Behaviour | None,
        luck: Luck,
    ) -> Answers:
        answers = self.inner.answer(seen, at_s, count, shadow, luck)
        if self.kind is FaultKind.MODEL_WRONG:
            return replace(
                answers,
                right=0,
                disagreements=0
                if shadow is None
                else answers.count - int(answers.count * WRONG_AGREES),
            )
        if self.kind is FaultKind.MODEL_NAN and luck.randrange(NONFINITE_EVERY) < answers.count:
            return replace(answers, nonfinite=answers.nonfinite + 1)
        return answers

    def sample(
        self, seen: Surroundings, at_s: float, shadow: Behaviour | None, luck: Luck
    ) -> Answered | None:
        return self.inner.sample(seen, at_s, shadow, luck)
