"""What an explanation is made of; `core.explanation` re-exports what others need.

Invariants: nothing here decides; a situation's name is stable: programs may rest on it.
"""

from dataclasses import dataclass
from typing import Final

from edgeloop.documents.why import Concern, Situation

NOTHING_TO_DO: Final = "nothing"


@dataclass(frozen=True)
class Explanation:
    situation: Situation
    concern: Concern
    sentence: str
    cause: str
    remedy: str
    since: float | None = None


@dataclass(frozen=True)
class SlotAccount:
    slot: str
    should_run: str
    """NAME@VERSION; empty: nothing is assigned."""
    runs: str
    """As reported; empty: nothing."""
    heard_at: float | None
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True)
class Account:
    device: tuple[Explanation, ...]
    slots: tuple[SlotAccount, ...]


def span(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit_s:
            return f"{max(0.0, seconds) / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
