"""What the answer to a webhook's delivery means. Pure.

    answer                              verdict
    2xx                                 delivered
    400, 413, 415, 422                  again, REFUSALS_MAX times in all; then given up
    any other, a redirect, no answer    again, until the bounds of the hook; then given up

Invariants: each event is tried at least once; a verdict depends on nothing but its arguments.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

REFUSED: Final = frozenset({400, 413, 415, 422})
"""The receiver refuses this event, and a later one may do: it shall not wait for a day."""

REFUSALS_MAX: Final = 5
WAIT_S_MAX: Final = 300.0


class Verdict(Enum):
    DELIVERED = auto()
    AGAIN = auto()
    GIVEN_UP = auto()


@dataclass(frozen=True)
class Bounds:
    attempts_max: int
    give_up_after_s: float


def verdict(status: int | None, attempts: int, age_s: float, bounds: Bounds) -> Verdict:
    """`status`: of HTTP, None for no answer; `attempts`: of this event, with this one; `age_s`:
    since the event."""
    if status is not None and 200 <= status < 300:
        return Verdict.DELIVERED
    attempts_max = REFUSALS_MAX if status in REFUSED else bounds.attempts_max
    if attempts >= min(attempts_max, bounds.attempts_max) or age_s >= bounds.give_up_after_s:
        return Verdict.GIVEN_UP
    return Verdict.AGAIN


def wait_s(backoff_s: float, retry_after: str) -> float:
    """The longer of the backoff and what the receiver asks for in seconds (Retry-After), at most
    WAIT_S_MAX."""
    asked_s = float(retry_after) if retry_after.isdecimal() and len(retry_after) <= 9 else 0.0
    return min(WAIT_S_MAX, max(backoff_s, asked_s))
