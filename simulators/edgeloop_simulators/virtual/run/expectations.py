"""What a scenario expects, held against what came.

Invariants: each expectation that the file gives is one check; a check that failed says what was
expected and what came, in words; nothing else decides whether a run passed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgeloop_simulators.virtual.run.recording import Alarm, Recording, RolloutRecord
from edgeloop_simulators.virtual.scenario.expect_tables import (
    ExpectAccuracy,
    ExpectChampion,
    ExpectDrift,
    ExpectRollout,
    ExpectTable,
)


@dataclass(frozen=True)
class Check:
    what: str
    expected: str
    came: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, came {self.came}"


def judge(expect: ExpectTable, recording: Recording) -> tuple[Check, ...]:
    """In the order of the file format."""
    return (
        _invariants(recording),
        *_of_the_world(expect, recording),
        *(check for one in expect.rollouts for check in _rollout(one, recording)),
        *(_champion(one, recording) for one in expect.champions),
        *(_drift(one, recording) for one in expect.drift),
        *(check for one in expect.accuracy for check in _accuracy(one, recording)),
    )


def _invariants(recording: Recording) -> Check:
    broken = [v for v in recording.outcome.violations if v.invariant != "EL-INV-7"]
    came = "; ".join(map(str, broken)) or "all hold"
    return Check("invariants", "all hold", came, not broken)


def _of_the_world(expect: ExpectTable, recording: Recording) -> Iterator[Check]:
    outcome = recording.outcome
    if expect.converged is not None:
        late = [v for v in outcome.violations if v.invariant == "EL-INV-7"]
        came = f"no: {late[0].part}: {late[0].detail}" if late else "yes"
        wanted = "yes" if expect.converged else "no"
        yield Check("fleet converged", wanted, came, bool(late) != expect.converged)
    yield from _at_most("wedged devices", expect.wedged_devices_max, recording.wedged())
    yield from _count_at_most(
        "telemetry records lost", expect.telemetry_lost_max, outcome.telemetry_lost
    )
    yield from _count_at_most(
        "telemetry records stored twice",
        expect.telemetry_duplicated_max,
        outcome.telemetry_duplicated,
    )
    false = [f"{device} {version} ({why})" for device, version, why in recording.false_rollbacks()]
    yield from _at_most("rollbacks of a good version", expect.false_rollbacks_max, false)
    alarms = [_alarm(alarm) for alarm in recording.alarms]
    yield from _at_most("drift alarms", expect.drift_alarms_max, alarms)
    limit = expect.bytes_up_per_device_day_max
    if limit is not None:
        sent = recording.bytes_up_per_device_day()
        yield Check("sent up a device and day", f"at most {_kb(limit)}", _kb(sent), sent <= limit)


# ---- rollouts -----------------------------------------------------------------------------------


def _rollout(expect: ExpectRollout, recording: Recording) -> Iterator[Check]:
    name = f"rollout of {expect.model}"
    found = [one for one in recording.rollouts if one.version == expect.model]
    if not found:
        yield Check(name, "started", "it never was", passed=False)
        return
    rollout = found[-1]
    status, verdict = rollout.last["status"], rollout.last["verdict"]
    if expect.status is not None:
        came = status if status == expect.status else f"{status}: {verdict}"
        yield Check(f"{name}: status", expect.status.value, came, status == expect.status)
    if expect.verdict_says is not None:
        says = expect.verdict_says in verdict
        yield Check(f"{name}: verdict", f"says {expect.verdict_says!r}", f"{verdict!r}", says)
    yield from _exposure(expect, rollout, name)
    yield from _times(expect, rollout, recording, name)


def _exposure(expect: ExpectRollout, rollout: RolloutRecord, name: str) -> Iterator[Check]:
    exposed, matching = len(rollout.exposed), len(rollout.matching)
    came = f"{exposed} of {matching} ({rollout.exposed_share:.1%})"
    if expect.exposed_share_max is not None:
        limit = expect.exposed_share_max
        passed = rollout.exposed_share <= limit
        yield Check(f"{name}: devices that ever ran it", f"at most {limit:.1%}", came, passed)
    if expect.exposed_devices_max is not None:
        most = expect.exposed_devices_max
        yield Check(f"{name}: devices that ever ran it", f"at most {most}", came, exposed <= most)
    back = rollout.rolled_back
    shown = _some(back)
    if expect.rolled_back_devices is not None:
        wanted = expect.rolled_back_devices
        yield Check(f"{name}: devices that rolled it back", str(wanted), shown, len(back) == wanted)
    if expect.rolled_back_devices_min is not None:
        least = expect.rolled_back_devices_min
        yield Check(
            f"{name}: devices that rolled it back", f"at least {least}", shown, len(back) >= least
        )


def _times(
    expect: ExpectRollout, rollout: RolloutRecord, recording: Recording, name: str
) -> Iterator[Check]:
    if expect.time_to_95_percent_max is not None:
        took_s = recording.time_to_share_s(rollout)
        yield _within(f"{name}: until 95% ran it", expect.time_to_95_percent_max, took_s)
    if expect.ends_within is not None:
        ended_s = rollout.ended_s
        took_s = None if ended_s is None else ended_s - rollout.started_s
        yield _within(f"{name}: until it ended", expect.ends_within, took_s)


def _within(what: str, limit_s: float, took_s: float | None) -> Check:
    came = "it never did" if took_s is None else duration(took_s)
    passed = took_s is not None and took_s <= limit_s
    return Check(what, f"at most {duration(limit_s)}", came, passed)


# ---- champions, drift, accuracy -----------------------------------------------------------------


def _champion(expect: ExpectChampion, recording: Recording) -> Check:
    devices = [device.id for device in recording.targets(expect.target)]
    other = [device for device in devices if recording.champion(device) != expect.model]
    running = len(devices) - len(other)
    share = running / len(devices) if devices else 0.0
    came = f"{running} of {len(devices)}"
    if other:
        shown = [f"{device} runs {recording.champion(device) or 'nothing'}" for device in other]
        came += f"; {_some(shown, count=False)}"
    what = f"devices of {expect.target} that run {expect.model} at the end"
    return Check(what, f"at least {expect.share_min:.0%}", came, share >= expect.share_min)


def _drift(expect: ExpectDrift, recording: Recording) -> Check:
    before_s = recording.ends_s if expect.before is None else expect.before
    fits = [
        alarm
        for alarm in recording.alarms
        if alarm.cause == expect.cause
        and expect.scope in (None, alarm.scope)
        and expect.key in (None, alarm.key)
        and expect.sensor in (None, alarm.sensor)
        and expect.after <= alarm.raised_s <= before_s
    ]
    wanted = expect.cause.value
    wanted += f" ({expect.sensor})" if expect.sensor else ""
    wanted += f" of {expect.key or expect.scope}" if expect.key or expect.scope else ""
    when = f"between {duration(expect.after)} and {duration(before_s)}"
    came = _some([_alarm(alarm) for alarm in fits or recording.alarms], count=False)
    return Check("drift alarm", f"{wanted}, {when}", came, bool(fits))


def _accuracy(expect: ExpectAccuracy, recording: Recording) -> Iterator[Check]:
    devices = {device.id for device in recording.targets(expect.target)}
    before_s = recording.ends_s if expect.before is None else expect.before
    found = recording.accuracy(devices, expect.after, before_s)
    what = f"accuracy of {expect.target}, {duration(expect.after)} to {duration(before_s)}"
    came = "no answers" if found is None else f"{found:.1%}"
    if expect.min is not None:
        passed = found is not None and found >= expect.min
        yield Check(what, f"at least {expect.min:.1%}", came, passed)
    if expect.max is not None:
        passed = found is not None and found <= expect.max
        yield Check(what, f"at most {expect.max:.1%}", came, passed)


# ---- words --------------------------------------------------------------------------------------


def _at_most(what: str, limit: int | None, found: list[str]) -> Iterator[Check]:
    if limit is not None:
        yield Check(what, _most(limit), _some(found), len(found) <= limit)


def _count_at_most(what: str, limit: int | None, found: int) -> Iterator[Check]:
    if limit is not None:
        yield Check(what, _most(limit), str(found), found <= limit)


def _most(limit: int) -> str:
    return f"at most {limit}" if limit else "none"


SHOWN_MAX: Final = 3


def _some(found: list[str] | tuple[str, ...], *, count: bool = True) -> str:
    """`4: a, b, c and 1 more`."""
    if not found:
        return "none"
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    listed = ", ".join(found[:SHOWN_MAX]) + more
    return f"{len(found)}: {listed}" if count else listed


def _alarm(alarm: Alarm) -> str:
    sensor = f" ({alarm.sensor})" if alarm.sensor else ""
    of = "the fleet" if alarm.scope == "fleet" else alarm.key
    return f"{alarm.cause}{sensor} of {of} at {duration(alarm.raised_s)}"


def duration(seconds: float) -> str:
    """`1 d 6 h`: the two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    left, parts = round(seconds), []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])


def _kb(size_bytes: float) -> str:
    return f"{size_bytes / 1000:.1f} kB"
