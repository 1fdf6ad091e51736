"""Which queued rollouts may start: those that overlap nothing active, and none queued before them.

Invariants: pure; two rollouts overlap when they are for the same slot and share a device, or are
for the same selector; who was queued first starts first.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a rollout is for: `devices` match its selector now, or are members of it."""

    rollout_id: int
    slot: str
    selector: str
    devices: Set[str]

    def shared(self, other: "Claim") -> Set[str]:
        return self.devices & other.devices if self.slot == other.slot else frozenset()

    def overlaps(self, other: "Claim") -> bool:
        same = self.slot == other.slot and self.selector == other.selector
        return same or bool(self.shared(other))


def startable(queued: Sequence[Claim], active: Sequence[Claim]) -> list[int]:
    """Of `queued`, the one queued first first, those that may start now."""
    ahead, may_start = list(active), list[int]()
    for claim in queued:
        if not any(claim.overlaps(other) for other in ahead):
            may_start.append(claim.rollout_id)
        ahead.append(claim)
    return may_start
