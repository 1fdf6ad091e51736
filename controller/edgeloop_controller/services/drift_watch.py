"""The drift watch: recent windows of what runs → findings → alarms, raised and cleared.

Invariants: an alarm's row and its event are one transaction; at most one alarm of a (slot,
version, scope, key, cause) is open; streaks live in memory, so a restart only delays; an alarm of
a version that its scope no longer runs is closed, and says so.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from edgeloop_controller.config import DriftConfig
from edgeloop_controller.core.alarms import AlarmKey, Streak, advance
from edgeloop_controller.core.drift import (
    Cause,
    Finding,
    Judgements,
    Scope,
    assess,
    examples_needed,
)
from edgeloop_controller.services.drift_history import VersionHistory
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.fleet import labels_of
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import devices, drift, events, telemetry
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import DriftAlarm
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.manifest import Manifest

logger = logging.getLogger(__name__)


class Watched(NamedTuple):
    slot: str
    manifest_digest: str

    def __str__(self) -> str:
        return f"{self.manifest_digest[:12]} on slot {self.slot}"


@dataclass(frozen=True)
class Look:
    """The findings of the last look at one version on one slot."""

    watched: Watched
    at: float
    findings: tuple[Finding, ...]


@dataclass
class _Memory:
    judgements: Judgements
    history: VersionHistory
    streaks: Mapping[AlarmKey, Streak] = field(default_factory=dict)


class _Running:
    """What runs somewhere as champion → the devices it runs on, with their labels; brought up to
    date by the devices that changed."""

    def __init__(self) -> None:
        self._through = 0
        self._on: dict[str, list[Watched]] = {}
        self._running: dict[Watched, dict[str, Mapping[str, str]]] = {}

    def refresh(self, session: Session) -> Mapping[Watched, Mapping[str, Mapping[str, str]]]:
        last = devices.last_change(session)
        if last > self._through:
            rows = devices.running_changed(session, self._through)
            for device_id, slots in groupby(rows, key=attrgetter("id")):
                self._leave(device_id)
                for row in slots:
                    if row.champion_digest is not None:
                        self._enter(row)
            self._through = last
        return self._running

    def _leave(self, device_id: str) -> None:
        for watched in self._on.pop(device_id, ()):
            del self._running[watched][device_id]
            if not self._running[watched]:
                del self._running[watched]

    def _enter(self, row: Any) -> None:
        watched = Watched(row.slot, row.champion_digest)
        self._on.setdefault(row.id, []).append(watched)
        labels = labels_of(row.agent_labels, row.labels)
        self._running.setdefault(watched, {})[row.id] = labels


class DriftWatch:
    """`look` is called by the scheduler, never twice at once."""

    def __init__(
        self, database: Database, registry: Registry, clock: Clock, config: DriftConfig
    ) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock
        self._config = config
        self._running = _Running()
        self._memory: dict[Watched, _Memory] = {}
        self._looks: dict[Watched, Look] = {}
        self._seen: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._failures = FailureLog(logger)

    def looks(self) -> list[Look]:
        """What the last look found, for people."""
        with self._lock:
            return list(self._looks.values())

    def look(self) -> None:
        with self._database.reading() as session:
            seen = devices.last_change(session), telemetry.last_window_id(session)
            running = self._running.refresh(session)
        if seen == self._seen:
            return  # nobody said anything and nothing changed: what was found stands
        self._seen = seen
        with self._lock:
            self._looks = {key: look for key, look in self._looks.items() if key in running}
        self._memory = {key: memory for key, memory in self._memory.items() if key in running}
        self._close_left_behind(running)
        for watched, labels in running.items():
            try:
                self._look_at(watched, labels)
                self._failures.worked(f"drift watch of {watched}")
            except Exception:
                self._seen = None
                self._failures.failed(f"drift watch of {watched}")

    def _look_at(self, watched: Watched, labels: Mapping[str, Mapping[str, str]]) -> None:
        manifest = self._registry.manifest(watched.manifest_digest)
        if manifest.baseline is None:
            return
        memory = self._memory.get(watched)
        if memory is None:
            judgements = Judgements(manifest)
            history = VersionHistory(examples_needed(manifest), judgements.bins)
            memory = self._memory[watched] = _Memory(judgements, history)
        now = self._clock.wall()
        with self._database.reading() as session:
            fresh = memory.history.add(
                telemetry.windows_after(session, *watched, memory.history.read_through)
            )
            if not fresh and watched in self._looks:
                return  # what was seen already is no further evidence
            alarms = _open_of(session, watched)
        faulty = [key.key for key in alarms if key.cause is Cause.SENSOR_FAULT]
        histories = memory.history.of_devices(labels, faulty, now - self._config.silent_s_max)
        findings = assess(histories, manifest, memory.judgements)
        change = advance(
            set(alarms),
            memory.streaks,
            findings,
            self._config.raise_after,
            self._config.clear_after,
        )
        memory.streaks = change.streaks
        if change.raised or change.cleared:
            self._write(watched, manifest, change.raised, change.cleared)
        with self._lock:
            self._looks[watched] = Look(watched, now, findings)

    def _write(
        self,
        watched: Watched,
        manifest: Manifest,
        raised: Sequence[Finding],
        cleared: Sequence[AlarmKey],
    ) -> None:
        now = self._clock.wall()
        with self._database.writing() as session:
            alarms = _open_of(session, watched)
            for key in cleared:
                if key in alarms:
                    _clear(session, alarms[key], now, "the finding is gone")
            for finding in raised:
                _raise(session, watched, manifest, finding, now)

    def _close_left_behind(self, running: Mapping[Watched, Mapping[str, object]]) -> None:
        now = self._clock.wall()
        with self._database.writing() as session:
            for alarm in drift.open_alarms(session):
                on = running.get(Watched(alarm.slot, alarm.manifest_digest), {})
                if not on:
                    _clear(session, alarm, now, "no device runs this version any more")
                elif alarm.scope == Scope.DEVICE and alarm.key not in on:
                    _clear(session, alarm, now, "the device runs another version")


def _open_of(session: Session, watched: Watched) -> dict[AlarmKey, DriftAlarm]:
    return {
        AlarmKey(Scope(alarm.scope), alarm.key, Cause(alarm.cause)): alarm
        for alarm in drift.open_alarms(session)
        if (alarm.slot, alarm.manifest_digest) == watched
    }


def _raise(
    session: Session, watched: Watched, manifest: Manifest, finding: Finding, now: float
) -> None:
    assert finding.cause is not None  # only findings with a cause are raised
    alarm = DriftAlarm(
        slot=watched.slot,
        manifest_digest=watched.manifest_digest,
        scope=finding.scope.value,
        key=finding.key,
        cause=finding.cause.value,
        sensor=finding.sensor,
        score=finding.value,
        threshold=finding.threshold,
        raised_at=now,
        cleared_at=None,
        evidence={"explanation": finding.explanation, **finding.evidence},
    )
    session.add(alarm)
    session.flush()
    data = _event(alarm) | {"version": str(manifest.ref()), "explanation": finding.explanation}
    events.add(session, now, "drift.raised", finding.key, data)


def _clear(session: Session, alarm: DriftAlarm, now: float, why: str) -> None:
    alarm.cleared_at = now
    events.add(session, now, "drift.cleared", alarm.key, _event(alarm) | {"why": why})


def _event(alarm: DriftAlarm) -> dict[str, Any]:
    return {
        "alarm": alarm.id,
        "slot": alarm.slot,
        "scope": alarm.scope,
        "cause": alarm.cause,
        "sensor": alarm.sensor,
        "score": alarm.score,
        "threshold": alarm.threshold,
    }
