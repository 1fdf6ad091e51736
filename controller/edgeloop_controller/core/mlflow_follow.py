"""What a follow of an alias does next. Pure.

    the look gave    handled before  does                                           says
    a version        another, none   publish; start a rollout, if configured        alias_moved
    a version        the same        nothing
    an error                         look again, with waits that double             failed, if new
    a version, after an error                                                       recovered

Invariants: what is said changes only when what is so changes; a wait is at most WAIT_S_MAX, or
`poll_s` where that is longer.
"""

from dataclasses import dataclass, replace
from typing import Final

WAIT_S_MIN: Final = 10.0
WAIT_S_MAX: Final = 3600.0


@dataclass(frozen=True)
class Standing:
    """How a follow stands; times by the controller's clock, in seconds."""

    looked_at: float | None = None
    next_look_at: float = 0.0
    version: str = ""
    """MLflow's number, as the last look that succeeded found it."""
    failures: int = 0
    """In a row."""
    error: str = ""
    failing_since: float | None = None


def is_due(standing: Standing, now: float) -> bool:
    return now >= standing.next_look_at


def has_moved(found: str, handled: str | None) -> bool:
    """`handled`: the version that was last acted on; None: none was."""
    return found != handled


def after_success(version: str, now: float, poll_s: float) -> Standing:
    return Standing(looked_at=now, next_look_at=now + poll_s, version=version)


def after_failure(standing: Standing, error: str, now: float, poll_s: float) -> Standing:
    failures = standing.failures + 1
    return replace(
        standing,
        looked_at=now,
        next_look_at=now + wait_s(failures, poll_s),
        failures=failures,
        error=error,
        failing_since=standing.failing_since if standing.failing_since is not None else now,
    )


def wait_s(failures: int, poll_s: float) -> float:
    """Until the next look, after so many failures in a row."""
    first_s = min(WAIT_S_MIN, poll_s)
    return min(first_s * 2.0 ** min(failures - 1, 32), max(WAIT_S_MAX, poll_s))


def news(before: Standing, after: Standing) -> str | None:
    """The kind of the event to write: `failed` for another error, `recovered` for none any more."""
    if after.error == before.error:
        return None
    return "failed" if after.error else "recovered"
