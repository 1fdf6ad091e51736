"""The figures of a run, each a pure function of what the run recorded.

Invariants: computed from the controller's database and from the testbed's ground truth alone, so
`edgeloop-sim summarize` gives the same figures again; what did not happen is None, never zero.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from edgeloop_simulators.record import Record, Row
from edgeloop_simulators.truth import RECENT_S, Answer, counts

RECOVERED_WITHIN: Final = 0.05
"""Accuracy has recovered when it is again no further than this below what it was at first."""
RECOVERED_MIN_ANSWERS: Final = 20


def summarize(record: Record) -> dict[str, Any]:
    """Every figure, by name; shares and accuracies between 0 and 1, times in seconds."""
    return {
        "devices": len(record.devices),
        "accuracy_v1_before": accuracy(counted(record, "first", "before")),
        "accuracy_v1_after_drift": accuracy(counted(record, "first", "after")),
        "accuracy_v2": accuracy(counted(record, "retrained", "after")),
        "seconds_to_detect_drift": seconds_to_detect_drift(record),
        "seconds_to_recover": seconds_to_recover(record),
        "false_drift_alarms": len(false_drift_alarms(record)),
        "sensor_fault_found": sensor_fault_found(record),
        "bad_versions_exposed_fraction": bad_versions_exposed_fraction(record),
        "bad_versions_stopped": bad_versions_stopped(record),
        "telemetry_lost": len(telemetry_lost(record)),
        "telemetry_duplicated": telemetry_duplicated(record),
        "telemetry_records": len(set(record.telemetry)),
        "bytes_up_per_device": bytes_up_per_device(record),
        "answers": len(record.answers),
        "answers_by_version": answers_by_version(record),
        "evaluation_of_v2": evaluation(record),
        "run_seconds": round(record.marks[-1].at - record.marks[0].at, 1),
    }


def counted(record: Record, kind: str, phase: str) -> list[Answer]:
    """Answers of the version published as `kind` that count in its accuracy in this phase."""
    digest = record.digest_of(kind)
    return [
        answer
        for answer in record.answers
        if answer.manifest_digest == digest
        and answer.phase == phase
        and counts(answer, record.trained)
    ]


def accuracy(answers: Iterable[Answer]) -> float | None:
    tally = Counter(answer.correct for answer in answers)
    return round(tally[True] / tally.total(), 4) if tally else None


def seconds_to_detect_drift(record: Record) -> float | None:
    """From the world's change to the first alarm that says that the world changed."""
    changed = record.first("world.changed")
    if changed is None or not changed.data["devices"]:
        return None
    raised = [
        alarm["raised_at"]
        for alarm in record.alarms
        if alarm["cause"] == "world_changed" and alarm["raised_at"] >= changed.at
    ]
    return round(min(raised) - changed.at, 1) if raised else None


def seconds_to_recover(record: Record) -> float | None:
    """From the world's change until the fleet's rolling accuracy, having been lost, is back.

    Rolling: over all counted answers of the last RECENT_S seconds, whichever version gave them;
    looked at as soon as all of those are from after the change. Lost: more than RECOVERED_WITHIN
    below v1's accuracy before the change. Back: no more than that below it, when it is a later
    version that answers most of them. None also when it was never lost.
    """
    changed, before = record.first("world.changed"), accuracy(counted(record, "first", "before"))
    first = record.digest_of("first")
    if changed is None or before is None or not changed.data["devices"]:
        return None
    answers = [answer for answer in record.answers if counts(answer, record.trained)]
    lost = False
    for at, window in rolling(answers):
        if at < changed.at + RECENT_S or len(window) < RECOVERED_MIN_ANSWERS:
            continue
        share = sum(answer.correct for answer in window) / len(window)
        replaced = sum(answer.manifest_digest != first for answer in window) > len(window) / 2
        if share < before - RECOVERED_WITHIN:
            lost = True
        elif lost and replaced:
            return round(at - changed.at, 1)
    return None


def rolling(
    answers: Sequence[Answer], step_s: float = 1.0
) -> Iterator[tuple[float, Sequence[Answer]]]:
    """At each step, those of the answers (in the order of time) that are RECENT_S old at most."""
    if not answers:
        return
    begin, at = 0, answers[0].at + step_s
    for end, answer in enumerate(answers):
        while answer.at >= at:
            while begin < end and answers[begin].at < at - RECENT_S:
                begin += 1
            yield at, answers[begin:end]
            at += step_s


def false_drift_alarms(record: Record) -> list[Row]:
    """Alarms that nothing in the world had given cause for.

    - any `sensor_fault` but one on a broken device that names the sensor that broke;
    - `world_changed` or `device_differs` before the world changed, or on a version that was
      published after it (it knows the world as it is); a broken device may differ.
    """
    broken = {m.data["device"]: m for m in record.marks if m.kind == "sensor.broken"}
    return [alarm for alarm in record.alarms if _is_false(alarm, record, broken)]


def _is_false(alarm: Row, record: Record, broken: dict[str, Any]) -> bool:
    fault = broken.get(alarm["key"]) if alarm["scope"] == "device" else None
    since_fault = fault is not None and alarm["raised_at"] >= fault.at
    if alarm["cause"] == "sensor_fault":
        return not (since_fault and fault is not None and alarm["sensor"] == fault.data["sensor"])
    if since_fault:
        return False
    changed = record.first("world.changed")
    if changed is None or not changed.data["devices"] or alarm["raised_at"] < changed.at:
        return True
    version = next(
        (v for v in record.versions if v["manifest_digest"] == alarm["manifest_digest"]), None
    )
    return version is not None and version["published_at"] > changed.at


def sensor_fault_found(record: Record) -> bool | None:
    """Whether an alarm named the sensor that broke; None: none was broken."""
    broken = record.first("sensor.broken")
    if broken is None:
        return None
    wanted = ("sensor_fault", broken.data["device"], broken.data["sensor"])
    return any((a["cause"], a["key"], a["sensor"]) == wanted for a in record.alarms)


def bad_digests(record: Record) -> dict[str, str]:
    """Manifest digest to what is wrong with it."""
    return {
        mark.data["manifest_digest"]: mark.data["is"]
        for mark in record.marks
        if mark.kind == "version.published" and mark.data["is"] in ("permuted", "nan")
    }


def bad_versions_exposed_fraction(record: Record) -> float | None:
    """The largest share of the fleet that ever ran one bad version; None: none was published.

    A device ran it if it sent a telemetry window or an answer of it, or settled on it in a rollout.
    """
    bad = bad_digests(record)
    if not bad or not record.devices:
        return None
    rollout_digest = {r["id"]: r["manifest_digest"] for r in record.rollouts}
    ran = set(record.ran)
    ran |= {(a.device, a.manifest_digest) for a in record.answers if a.manifest_digest}
    ran |= {
        (m["device_id"], rollout_digest[m["rollout_id"]])
        for m in record.members
        if m["phase"] in ("committed", "failed") or m["settled_at"] is not None
    }
    exposed = Counter(digest for _, digest in ran if digest in bad)
    return round(max(exposed.values(), default=0) / len(record.devices), 4)


def bad_versions_stopped(record: Record) -> dict[str, str]:
    """What became of each bad version's rollout: its status and the gate's verdict in words."""
    bad = bad_digests(record)
    return {
        bad[rollout["manifest_digest"]]: f"{rollout['status']}: {rollout['verdict']}"
        for rollout in record.rollouts
        if rollout["manifest_digest"] in bad
    }


def telemetry_lost(record: Record) -> list[tuple[str, str, int]]:
    """Records that an agent appended and no longer holds, and that are not in the database."""
    stored = set(record.telemetry)
    return [
        (outbox.device, outbox.epoch, sequence)
        for outbox in record.outboxes
        for sequence in range(1, outbox.appended - outbox.held + 1)
        if (outbox.device, outbox.epoch, sequence) not in stored
    ]


def telemetry_duplicated(record: Record) -> int:
    """Stored rows beyond one for each record.

    Those under a (device, epoch, sequence) that another row has, and windows and samples that say
    the same as one that is stored under another number.
    """
    same_number = len(record.telemetry) - len(set(record.telemetry))
    numbered = set(record.contents)
    return same_number + len(numbered) - len({content for _, content in numbered})


def bytes_up_per_device(record: Record) -> int | None:
    """MQTT topic and payload bytes that the controller received from a device, on average."""
    if not record.devices:
        return None
    total = sum(int(device["bytes_up"]) for device in record.devices)
    return round(total / len(record.devices))


def answers_by_version(record: Record) -> dict[str, dict[str, Any]]:
    """For each version: its answers, those that count, why others do not, accuracy by phase."""
    names = {v["manifest_digest"]: f"{v['name']}@{v['version']}" for v in record.versions}
    grouped: dict[str, list[Answer]] = defaultdict(list)
    for answer in record.answers:
        grouped[names.get(answer.manifest_digest or "", "no version")].append(answer)
    return {name: _tally(record, answers) for name, answers in sorted(grouped.items())}


def _tally(record: Record, answers: list[Answer]) -> dict[str, Any]:
    kept = [answer for answer in answers if counts(answer, record.trained)]
    broken = sum(answer.broken for answer in answers)
    return {
        "answers": len(answers),
        "counted": len(kept),
        "left_out_broken_sensor": broken,
        "left_out_trained_on": len(answers) - len(kept) - broken,
        "errors": sum(answer.error is not None for answer in answers),
        "accuracy_before": accuracy(a for a in kept if a.phase == "before"),
        "accuracy_after": accuracy(a for a in kept if a.phase == "after"),
        "accuracy_broken_sensor": accuracy(a for a in answers if a.broken),
    }


def evaluation(record: Record) -> dict[str, Any] | None:
    """What the controller found of v2 beside v1 on held-back labels, before publishing it."""
    for run in record.training_runs:
        if run["status"] == "succeeded":
            result = json.loads(run["result"])
            return {"held_back": result["evaluation"], **result["subsets"]}
    return None
