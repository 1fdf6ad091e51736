"""Verified metadata in memory: the twin of the agent's verifier, with its faults.

Invariants: the same contract as the real one; `problem` stands for whatever keeps metadata from
being believed.
"""

from collections.abc import Mapping, Sequence

from edgeloop_agent.core.trust import Listed, Target
from edgeloop_agent.errors import TrustUnavailableError


class MemoryTrust:
    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets = dict(targets)
        self.problem = ""

    def look_up(self, names: Sequence[str]) -> Listed:
        if self.problem:
            raise TrustUnavailableError(f"metadata: {self.problem}")
        return {name: self.targets[name] for name in names if name in self.targets}
