"""What happened when: events and series of a run, ready to be drawn. Pure over a record.

Invariants: times are seconds since the run's start; every event comes from a row of the database
or from a mark of the world, none is made up.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from edgeloop_simulators.record import Record, Row
from edgeloop_simulators.summary import bad_digests, rolling
from edgeloop_simulators.truth import Answer, counts

Tone = Literal["world", "alarm", "work", "good", "bad"]

SERIES_STEP_S: Final = 1.0
SERIES_MIN_ANSWERS: Final = 12
STRIP_STEP_S: Final = 1.0


@dataclass(frozen=True)
class TimelineEvent:
    at_s: float
    text: str
    tone: Tone
    detail: str = ""


@dataclass(frozen=True)
class Series:
    """A line: (seconds, value) points in stretches; a gap in time begins a new stretch."""

    name: str
    stretches: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Strip:
    """Which version answered on one device: (from, to, version name)."""

    device: str
    spans: tuple[tuple[float, float, str], ...]


def start_of(record: Record) -> float:
    return record.marks[0].at


def length_of(record: Record) -> float:
    return record.marks[-1].at - record.marks[0].at


def version_names(record: Record) -> dict[str, str]:
    """Manifest digest to `v<version>`, in the order of publishing."""
    return {str(v["manifest_digest"]): f"v{v['version']}" for v in record.versions}


def events_of(record: Record) -> list[TimelineEvent]:
    """All events, in order."""
    found = [
        *_of_the_world(record),
        *_of_alarms(record),
        *_of_training(record),
        *_of_rollouts(record),
    ]
    return sorted(found, key=lambda event: event.at_s)


def _of_the_world(record: Record) -> Iterator[TimelineEvent]:
    tones: dict[str, Tone] = {
        "world.changed": "world",
        "sensor.broken": "world",
        "version.published": "good",
        "step.failed": "bad",
    }
    for mark in record.marks:
        if mark.kind in tones:
            bad = mark.data.get("is") in ("permuted", "nan")
            tone = "bad" if bad else tones[mark.kind]
            text = f"published: {mark.text}" if mark.kind == "version.published" else mark.text
            yield TimelineEvent(mark.at - start_of(record), text, tone)


def _of_alarms(record: Record) -> Iterator[TimelineEvent]:
    """Alarms of one cause that were raised at the same look of the controller are one event."""
    looks: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for alarm in record.alarms:
        looks[alarm["cause"], alarm["scope"], round(alarm["raised_at"])].append(alarm)
    for alarms in looks.values():
        first = max(alarms, key=lambda one: float(one["score"]))
        what = f"{first['cause']} ({first['sensor']})" if first["sensor"] else str(first["cause"])
        of = "the fleet" if first["scope"] == "fleet" else ", ".join(a["key"] for a in alarms[:3])
        more = f" and {len(alarms) - 3} more" if len(alarms) > 3 else ""
        score = f"score {first['score']:.2f}, threshold {first['threshold']:.2f}"
        at_s = first["raised_at"] - start_of(record)
        yield TimelineEvent(at_s, f"alarm: {what} on {of}{more}", "alarm", score)


def _of_training(record: Record) -> Iterator[TimelineEvent]:
    for run in record.training_runs:
        if run["started_at"]:
            at_s = run["started_at"] - start_of(record)
            yield TimelineEvent(at_s, f"training run {run['id']} starts ({run['trigger']})", "work")
        if run["ended_at"] and run["status"] != "succeeded":
            at_s = run["ended_at"] - start_of(record)
            text = f"training run {run['id']} {run['status']}"
            yield TimelineEvent(at_s, text, "bad", run["error"])


def _of_rollouts(record: Record) -> Iterator[TimelineEvent]:
    names = version_names(record)
    for rollout in record.rollouts:
        version = names.get(rollout["manifest_digest"], "?")
        for wave, offered_at in _waves(record, rollout):
            text = f"{version}: wave {wave + 1} of {_wave_count(rollout)}"
            yield TimelineEvent(offered_at - start_of(record), text, "work")
        if rollout["ended_at"]:
            good = rollout["status"] == "done"
            at_s = rollout["ended_at"] - start_of(record)
            text = f"{version}: rollout {rollout['status']}"
            yield TimelineEvent(at_s, text, "good" if good else "bad", rollout["verdict"])


def _wave_count(rollout: Row) -> int:
    return str(rollout["waves"]).count('"') // 2


def _waves(record: Record, rollout: Row) -> list[tuple[int, float]]:
    """Each wave with when its first device was offered the version."""
    first: dict[int, float] = {}
    for member in record.members:
        if member["rollout_id"] == rollout["id"] and member["offered_at"] is not None:
            wave = int(member["wave"])
            first[wave] = min(first.get(wave, float("inf")), member["offered_at"])
    return sorted(first.items())


def accuracy_series(record: Record) -> list[Series]:
    """Each version's rolling accuracy over its own counted answers."""
    names = version_names(record)
    by_version: dict[str, list[Answer]] = defaultdict(list)
    for answer in record.answers:
        if counts(answer, record.trained):
            by_version[names.get(answer.manifest_digest or "", "?")].append(answer)
    return [
        Series(name, _stretches(record, by_version[name]))
        for name in names.values()
        if name in by_version
    ]


def _stretches(
    record: Record, answers: list[Answer]
) -> tuple[tuple[tuple[float, float], ...], ...]:
    stretches: list[list[tuple[float, float]]] = []
    last_s = float("-inf")
    for at, window in rolling(answers, SERIES_STEP_S):
        at_s = at - start_of(record)
        if len(window) < SERIES_MIN_ANSWERS:
            continue
        if at_s - last_s > 2 * SERIES_STEP_S:
            stretches.append([])
        stretches[-1].append((at_s, sum(a.correct for a in window) / len(window)))
        last_s = at_s
    return tuple(tuple(stretch) for stretch in stretches)


def score_series(record: Record) -> list[Series]:
    """The fleet's drift score against its threshold, for each version: 1 is the threshold."""
    names = version_names(record)
    by_version: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in record.scores:
        if line["scope"] == "fleet" and line["threshold"]:
            point = (line["at"] - start_of(record), line["score"] / line["threshold"])
            by_version[names.get(line["manifest_digest"], "?")].append(point)
    return [Series(name, (tuple(points),)) for name, points in by_version.items()]


def strips(record: Record) -> list[Strip]:
    """For each device, which version answered in each second."""
    names = version_names(record)
    seen: dict[str, dict[int, str]] = defaultdict(dict)
    for answer in record.answers:
        step = int((answer.at - start_of(record)) / STRIP_STEP_S)
        name = names.get(answer.manifest_digest or "")
        if name is not None:
            seen[answer.device][step] = name
    return [
        Strip(str(device["id"]), tuple(_spans(seen[str(device["id"])])))
        for device in record.devices
    ]


def _spans(steps: dict[int, str]) -> Iterator[tuple[float, float, str]]:
    """Adjoining seconds of one version joined."""
    begin = last = -1
    name = ""
    for step in sorted(steps):
        if step != last + 1 or steps[step] != name:
            if name:
                yield begin * STRIP_STEP_S, (last + 1) * STRIP_STEP_S, name
            begin, name = step, steps[step]
        last = step
    if name:
        yield begin * STRIP_STEP_S, (last + 1) * STRIP_STEP_S, name


def change_s(record: Record) -> float | None:
    changed = record.first("world.changed")
    return changed.at - start_of(record) if changed and changed.data["devices"] else None


def bad_names(record: Record) -> frozenset[str]:
    names = version_names(record)
    return frozenset(names[digest] for digest in bad_digests(record) if digest in names)
