"""What an explanation is made of; `core.explanation` re-exports what others need.

Invariants: nothing here decides; a situation's name is stable: programs may rest on it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NOTHING_TO_DO: Final = "nothing"


class Concern(StrEnum):
    NONE = "none"
    WAITS = "waits"
    """It goes on by itself."""
    PERSON = "person"
    """It stays so until a person does something."""


class Situation(StrEnum):
    """Tables of when each holds are in the modules that give them."""

    NEVER_SEEN = "never_seen"
    BROKER_AWAY = "broker_away"
    OFFLINE = "offline"
    BEHIND = "behind"
    AHEAD = "ahead"
    HELD = "held"
    NO_SLOT = "no_slot"

    RUNS = "runs"
    RUNS_UNASSIGNED = "runs_unassigned"
    RUNNER_DOWN = "runner_down"
    EMPTY = "empty"
    NOT_TOLD = "not_told"
    NOT_BEGUN = "not_begun"
    INSTALLING = "installing"
    WAITING = "waiting"
    REFUSED = "refused"

    NO_PLACE = "no_place"
    INELIGIBLE = "ineligible"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    HELD_OUT = "held_out"
    HELD_BY_ROLLOUT = "held_by_rollout"
    ROLLOUT_QUEUED = "rollout_queued"
    ROLLOUT_UNAPPROVED = "rollout_unapproved"
    ROLLOUT_PAUSED = "rollout_paused"
    ROLLOUT_HALTED = "rollout_halted"
    ROLLOUT_ABORTED = "rollout_aborted"

    CHALLENGER = "challenger"
    CHALLENGER_REFUSED = "challenger_refused"
    DRIFT = "drift"


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
