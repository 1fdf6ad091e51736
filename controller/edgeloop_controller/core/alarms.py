"""Raising and clearing drift alarms: a finding must last before it rings, and be gone before it
stops.

Invariants: an alarm is known by (scope, key, cause); a scope without a finding this time (too few
examples, offline) keeps its streak; at most one alarm of a key is open.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeloop_controller.core.drift import Cause, Finding, Scope


@dataclass(frozen=True)
class AlarmKey:
    scope: Scope
    key: str
    cause: Cause


@dataclass(frozen=True)
class Streak:
    """Consecutive findings with the cause, and without it; one of the two is always 0."""

    found: int = 0
    absent: int = 0


@dataclass(frozen=True)
class Change:
    """The streaks to hand in next time, and what to write down now."""

    streaks: Mapping[AlarmKey, Streak]
    raised: tuple[Finding, ...]
    cleared: tuple[AlarmKey, ...]


def advance(
    open_alarms: Collection[AlarmKey],
    streaks: Mapping[AlarmKey, Streak],
    findings: Sequence[Finding],
    raise_after: int,
    clear_after: int,
) -> Change:
    """One round of findings of one (slot, version). Restarting with empty streaks only delays."""
    seen = {(finding.scope, finding.key): finding for finding in findings}
    named = {AlarmKey(f.scope, f.key, f.cause): f for f in findings if f.cause is not None}
    kept: dict[AlarmKey, Streak] = {}
    for alarm in {**dict.fromkeys(open_alarms), **streaks, **named}:
        before = streaks.get(alarm, Streak())
        if (alarm.scope, alarm.key) not in seen:
            kept[alarm] = before
        elif alarm in named:
            kept[alarm] = Streak(found=before.found + 1)
        else:
            kept[alarm] = Streak(absent=before.absent + 1)
    raised = tuple(
        finding
        for alarm, finding in named.items()
        if alarm not in open_alarms and kept[alarm].found >= raise_after
    )
    cleared = tuple(alarm for alarm in open_alarms if kept[alarm].absent >= clear_after)
    still = {
        alarm: streak
        for alarm, streak in kept.items()
        if alarm not in cleared and (streak.found or alarm in open_alarms)
    }
    return Change(still, raised, cleared)
