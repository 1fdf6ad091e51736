"""`report.json`: a run of a virtual world as one document, for programs and for the page.

Invariants: the page and `edgeloop-sim compare` show nothing that does not stand here; times are
virtual seconds since the world's beginning; the same run gives the same document.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from edgeloop_simulators.virtual.report.evidence_document import (
    drift_figures,
    drift_scores,
    gate_figures,
    gates,
)
from edgeloop_simulators.virtual.run.play import Run
from edgeloop_simulators.virtual.run.recorder import DeviceTrack, Window
from edgeloop_simulators.virtual.run.recording import (
    Recording,
    RolloutRecord,
    by_version,
    share_right,
)

FORMAT: Final = 2
STEPS: Final = 300
"""Points of each series."""
STRIPS_MAX: Final = 60
"""Devices whose spans are kept; of a larger fleet the series alone are."""
EVENTS_MAX: Final = 200
ANSWERS_MIN: Final = 50
"""A share of fewer answers says more of luck than of the version."""
NO_VERSION: Final = "no version"
_EVENTS: Final = ("rollout.", "drift.", "training.", "version.published")
_QUIET: Final = ("rollout.device_failed", "rollout.device_overdue")

Document = dict[str, Any]


def document(run: Run) -> Document:
    """All that a report shows."""
    recording, scenario = run.recording, run.loaded.scenario
    outcome = recording.outcome
    step_s = recording.ends_s / STEPS
    times = [round(number * step_s, 3) for number in range(STEPS + 1)]
    rollouts = [_rollout(rollout, recording) for rollout in recording.rollouts]
    scores = drift_scores(recording, times)
    return {
        "format": FORMAT,
        "title": scenario.title,
        "shows": scenario.shows,
        "seed": outcome.seed,
        "trace_hash": outcome.trace_hash,
        "events_run": outcome.events,
        "duration_s": scenario.duration,
        "ends_s": recording.ends_s,
        "passed": run.passed,
        "expectations": [dict(check.__dict__) for check in run.checks],
        "violations": [str(violation) for violation in outcome.violations],
        "sites": [_site(site.name, recording) for site in scenario.sites],
        "versions": list(_versions(recording)),
        "figures": _figures(recording) | _evidence_figures(rollouts, scores),
        "rollouts": rollouts,
        "drift": [dict(alarm.__dict__) for alarm in recording.alarms],
        "drift_scores": scores,
        "faults": [
            {"from_s": span.from_s, "to_s": span.to_s, "text": span.text}
            for span in sorted(recording.recorder.faults)
        ],
        "world": [{"at_s": at_s, "text": text} for at_s, text in _of_the_world(run)],
        "controller_down": _spans_off(recording.recorder.controller, recording.ends_s),
        "events": list(_events(recording))[:EVENTS_MAX],
        "times": times,
        "series": _series(recording, times),
        "devices": [_device(device, recording) for device in recording.devices],
    }


def _of_the_world(run: Run) -> Iterator[tuple[float, str]]:
    """What the scenario did to the world besides faults."""
    scenario = run.loaded.scenario
    for drift in scenario.drift:
        of = "all devices" if drift.target == "*" else drift.target
        yield drift.at, f"the world turns to {drift.called or drift.phase} for {of}"
    for broken in scenario.broken_sensors:
        what = f"{broken.device}: {broken.sensor}"
        if broken.swapped_with:
            yield broken.at, f"{what} and {broken.swapped_with} are swapped"
        else:
            yield broken.at, f"{what} goes dead"


def _site(name: str, recording: Recording) -> Document:
    devices = recording.targets(f"site:{name}")
    kind = devices[0].kind
    return {
        "name": name,
        "devices": len(devices),
        "class": kind.name,
        "architecture": kind.architecture,
        "utc_offset_h": devices[0].utc_offset_h,
    }


# ---- figures ------------------------------------------------------------------------------------


def _figures(recording: Recording) -> dict[str, Document]:
    """Name → value and unit; what `compare` compares."""
    outcome = recording.outcome
    late = any(violation.invariant == "EL-INV-7" for violation in outcome.violations)
    figures = {
        "devices": _figure(len(recording.devices), "count"),
        "invariants broken": _figure(
            sum(v.invariant != "EL-INV-7" for v in outcome.violations), "count"
        ),
        "fleet converged": _figure("no" if late else "yes", "text"),
        "wedged devices": _figure(len(recording.wedged()), "count"),
        "rollbacks of a good version": _figure(len(recording.false_rollbacks()), "count"),
        "devices that ran a bad version": _figure(_exposed_to_bad(recording), "share"),
        "accuracy": _figure(recording.accuracy(), "share"),
        "drift alarms": _figure(len(recording.alarms), "count"),
        "telemetry records stored": _figure(outcome.telemetry_stored, "count"),
        "telemetry records lost": _figure(outcome.telemetry_lost, "count"),
        "telemetry records stored twice": _figure(outcome.telemetry_duplicated, "count"),
        "sent up a device and day": _figure(recording.bytes_up_per_device_day(), "bytes"),
        "sent down to a device": _figure(
            sum(outcome.bytes_down.values()) / max(len(recording.devices), 1), "bytes"
        ),
    }
    for rollout in recording.rollouts:
        name = f"rollout {rollout.id} ({rollout.version})"
        ended_s = rollout.ended_s
        took_s = None if ended_s is None else ended_s - rollout.started_s
        figures |= {
            f"{name}: status": _figure(rollout.last["status"], "text"),
            f"{name}: devices that ever ran it": _figure(rollout.exposed_share, "share"),
            f"{name}: devices that rolled it back": _figure(len(rollout.rolled_back), "count"),
            f"{name}: until it ended": _figure(took_s, "seconds"),
            f"{name}: until 95% ran it": _figure(recording.time_to_share_s(rollout), "seconds"),
        }
    for version, windows in by_version(recording.recorder.windows).items():
        figures[f"accuracy of {version}"] = _figure(share_right(windows), "share")
    return figures


def _evidence_figures(
    rollouts: Sequence[Document], scores: Sequence[Document]
) -> dict[str, Document]:
    """What gates and the drift watch stood before."""
    figures = {}
    for rollout in rollouts:
        for name, value, unit in gate_figures(rollout["gates"], rollout["status"]):
            figures[f"rollout {rollout['id']} ({rollout['version']}): {name}"] = _figure(
                value, unit
            )
    return figures | {name: _figure(value, unit) for name, value, unit in drift_figures(scores)}


def _figure(value: Any, unit: str) -> Document:
    return {"value": round(value, 6) if isinstance(value, float) else value, "unit": unit}


def _exposed_to_bad(recording: Recording) -> float:
    exposed = {
        device
        for version, devices in recording.recorder.exposed.items()
        for device in devices
        if recording.built.is_bad(version, recording.devices[device].kind.architecture)
    }
    return len(exposed) / max(len(recording.devices), 1)


def _versions(recording: Recording) -> Iterator[Document]:
    windows = by_version(recording.recorder.windows)
    running = Counter(recording.champion(device) for device in recording.devices)
    for version in recording.versions:
        answered = windows.get(version, [])
        on = recording.built.bad.get(version, frozenset())
        yield {
            "name": version,
            "bad": bool(on),
            "bad_on": sorted(architecture for architecture in on if architecture),
            "answers": sum(window.answers for window in answered),
            "accuracy": share_right(answered),
            "exposed": len(recording.recorder.exposed.get(version, {})),
            "rolled_back": sum(one.version == version for one in recording.recorder.rollbacks),
            "running_at_the_end": running[version],
        }


def _rollout(rollout: RolloutRecord, recording: Recording) -> Document:
    """`points`: when how many devices stood where, by the controller's database."""
    return {
        "id": rollout.id,
        "version": rollout.version,
        "selector": rollout.selector,
        "waves": list(rollout.waves),
        "status": rollout.last["status"],
        "verdict": rollout.last["verdict"],
        "matching": len(rollout.matching),
        "exposed": [at_s for _, at_s in rollout.exposed],
        "rolled_back": list(rollout.rolled_back),
        "started_s": rollout.started_s,
        "ended_s": rollout.ended_s,
        "time_to_95_percent_s": recording.time_to_share_s(rollout),
        "waves_at_s": _waves_at(rollout),
        "points": [
            {
                "at_s": at_s,
                **{key: row[key] for key in ("offered", "committed", "failed", "withdrawn")},
            }
            for at_s, row in rollout.points
        ],
        "gates": gates(rollout, recording),
    }


def _waves_at(rollout: RolloutRecord) -> list[float]:
    """When each wave that was reached began."""
    began: dict[int, float] = {}
    for at_s, row in rollout.points:
        began.setdefault(row["wave"], at_s)
    return [began[wave] for wave in sorted(began)]


# ---- series -------------------------------------------------------------------------------------


def _series(recording: Recording, times: Sequence[float]) -> Document:
    names = [*recording.versions, NO_VERSION]
    running: dict[str, list[int]] = {name: [] for name in names}
    on_trial: list[int] = []
    connected: list[int] = []
    for at_s in times:
        champions: Counter[str] = Counter()
        trials = reached = 0
        for device in recording.devices:
            change = recording.at(device, at_s)
            champions[change.trial or change.champion or NO_VERSION] += 1
            trials += change.trial is not None
            reached += _is(recording.track(device).connected, at_s)
        for name in names:
            running[name].append(champions[name])
        on_trial.append(trials)
        connected.append(reached)
    return {
        "running": {name: counts for name, counts in running.items() if any(counts)},
        "on_trial": on_trial,
        "connected": connected,
        "accuracy": _accuracy(recording, times),
    }


def _accuracy(recording: Recording, times: Sequence[float]) -> Document:
    """Of the windows that ended in each step, and of as many before as reach back one window."""
    span_s = max(times[1] - times[0], 2 * recording.built.spec.agent.window_s)
    windows = recording.recorder.windows
    found = {"all": _rolling(windows, times, span_s)}
    for version, own in by_version(windows).items():
        found[version] = _rolling(own, times, span_s)
    return found


def _rolling(
    windows: Sequence[Window], times: Sequence[float], span_s: float
) -> list[float | None]:
    shares: list[float | None] = []
    begin = end = 0
    for at_s in times:
        while end < len(windows) and windows[end].at_s <= at_s:
            end += 1
        while begin < end and windows[begin].at_s <= at_s - span_s:
            begin += 1
        within = windows[begin:end]
        share = share_right(within) if sum(w.answers for w in within) >= ANSWERS_MIN else None
        shares.append(None if share is None else round(share, 4))
    return shares


# ---- devices ------------------------------------------------------------------------------------


def _device(device: str, recording: Recording) -> Document:
    outcome, track = recording.outcome, recording.track(device)
    spec = recording.devices[device]
    found: Document = {
        "id": device,
        "site": spec.site,
        "class": spec.kind.name,
        "champion": recording.champion(device),
        "bytes_up": outcome.bytes_up.get(device, 0),
        "bytes_down": outcome.bytes_down.get(device, 0),
    }
    if len(recording.devices) <= STRIPS_MAX:
        found["spans"] = _spans(track, recording.ends_s)
        found["off"] = _spans_off(track.on, recording.ends_s)
        found["unconnected"] = _spans_off(track.connected, recording.ends_s)
        found["rolled_back_s"] = [
            one.at_s for one in recording.recorder.rollbacks if one.device == device
        ]
    return found


def _spans(track: DeviceTrack, ends_s: float) -> list[Document]:
    """Adjoining changes to the same joined."""
    spans: list[Document] = []
    for change in track.changes:
        version = change.trial or change.champion
        trial = change.trial is not None
        if spans and spans[-1]["to_s"] is None:
            if (spans[-1]["version"], spans[-1]["trial"]) == (version, trial):
                continue
            spans[-1]["to_s"] = change.at_s
        if version is not None:
            spans.append({"from_s": change.at_s, "to_s": None, "version": version, "trial": trial})
    if spans and spans[-1]["to_s"] is None:
        spans[-1]["to_s"] = ends_s
    return [span for span in spans if span["to_s"] > span["from_s"]]


def _spans_off(states: Sequence[tuple[float, bool]], ends_s: float) -> list[tuple[float, float]]:
    """When it was not, from its first time on."""
    spans: list[tuple[float, float]] = []
    off_s: float | None = None
    for at_s, on in states:
        if not on and off_s is None:
            off_s = at_s
        elif on and off_s is not None:
            spans.append((off_s, at_s))
            off_s = None
    if off_s is not None:
        spans.append((off_s, ends_s))
    return spans


def _is(states: Sequence[tuple[float, bool]], at_s: float) -> bool:
    state = False
    for changed_s, on in states:
        if changed_s > at_s:
            break
        state = on
    return state


# ---- events -------------------------------------------------------------------------------------


def _events(recording: Recording) -> Iterator[Document]:
    found = [*_of_the_controller(recording), *_of_devices(recording)]
    yield from sorted(found, key=lambda event: event["at_s"])


def _of_the_controller(recording: Recording) -> Iterator[Document]:
    for row in recording.recorder.happened:
        if row.kind.startswith(_EVENTS) and row.kind not in _QUIET:
            data = row.data
            yield _event(row.at_s, row.kind, data["subject"], _detail(data))
    up = False
    for at_s, on in recording.recorder.controller:
        if on != up and at_s > 0:
            yield _event(at_s, "controller.started" if on else "controller.died", "", "")
        up = on


def _of_devices(recording: Recording) -> Iterator[Document]:
    """Devices that rolled a version back, together where they did so for the same cause."""
    grouped: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for one in recording.recorder.rollbacks:
        grouped.setdefault((one.version, one.cause), []).append((one.at_s, one.device))
    for (version, cause), devices in grouped.items():
        names = ", ".join(device for _, device in devices[:3])
        more = f" and {len(devices) - 3} more" if len(devices) > 3 else ""
        yield _event(devices[0][0], "device.rolled_back", version, f"{cause}: {names}{more}")


def _event(at_s: float, kind: str, subject: str, detail: str) -> Document:
    return {"at_s": at_s, "kind": kind, "subject": subject, "detail": detail}


def _detail(data: Mapping[str, Any]) -> str:
    cause = data.get("cause")
    if cause is not None:
        sensor = f" ({data['sensor']})" if data.get("sensor") else ""
        return f"{cause}{sensor}: {data.get('explanation') or data.get('why', '')}"
    return str(data.get("detail") or data.get("why") or "")
