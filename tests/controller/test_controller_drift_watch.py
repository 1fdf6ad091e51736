"""The drift watch: alarms from the windows that devices send, and their end."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from edgeloop_controller.core.drift import examples_needed
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.store import drift
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import DriftAlarm, Event
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import (
    Record,
    SlotReported,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic

PER_WINDOW = 50


@dataclass
class Wearer:
    """A device that runs a version, and sends windows of what its sensors see."""

    device: Any
    manifest: Manifest
    generator: np.random.Generator
    sequence: int = 0

    def window(self, shift: tuple[float, float, float]) -> Inbound:
        baseline = self.manifest.baseline
        assert baseline is not None
        seen = self.generator.normal(size=(PER_WINDOW, 3)) + np.asarray(shift)
        counts = tuple(
            tuple(
                int(n)
                for n in np.bincount(
                    np.searchsorted(binned.edges, seen[:, i], side="right"),
                    minlength=len(binned.shares),
                )
            )
            for i, binned in enumerate(baseline.features)
        )
        shares = np.asarray(baseline.confidence.shares)
        self.sequence += 1
        body = WindowSummary(
            slot="main",
            version=self.manifest.ref(),
            started_at=0.0,
            ended_at=1.0,
            count=PER_WINDOW,
            latency_p50_us=1.0,
            latency_p95_us=2.0,
            predictions=tuple(round(s * PER_WINDOW) for s in baseline.predictions),
            confidence=tuple(int(n) for n in np.round(shares * PER_WINDOW)),
            features=counts,
        )
        record = Record(sequence=self.sequence, body=body)
        batch = TelemetryBatch(epoch=self.device.epoch, base=1, records=(record,))
        return Inbound(up_topic(self.device.id, Up.TELEMETRY), encode(batch))


def _runs(device: Any, version: VersionRef) -> Any:
    device.slots = (SlotReported(slot="main", state=SlotState.COMMITTED, champion=version),)
    return device


@pytest.fixture
def wearers(controller: Any, make_device: Any) -> list[Wearer]:
    version = controller.publish("1", baseline=True)
    manifest = controller.parts.services.registry.manifest(version.manifest_digest)
    made = []
    for number in range(5):
        device = _runs(make_device(f"d{number}"), version)
        controller.takes(device.hello())
        made.append(Wearer(device, manifest, np.random.default_rng(number)))
    return made


def _live(controller: Any, wearers: list[Wearer], shift: Any) -> None:
    """As many windows as a score is taken over, twice."""
    for _ in range(2 * -(-examples_needed(wearers[0].manifest) // PER_WINDOW)):
        controller.takes(*(wearer.window(shift(wearer)) for wearer in wearers))


def _look(controller: Any, times: int = 1) -> None:
    """Without anything new between the looks."""
    for _ in range(times):
        controller.parts.services.drift_watch.look()


def _live_and_look(controller: Any, wearers: list[Wearer], shift: Any, times: int) -> None:
    """A look after each new window of everybody."""
    for _ in range(times):
        controller.takes(*(wearer.window(shift(wearer)) for wearer in wearers))
        _look(controller)


def _alarms(database: Database) -> list[tuple[str, str, str, str | None, bool]]:
    with database.reading() as session:
        return [
            (a.scope, a.key, a.cause, a.sensor, a.cleared_at is None)
            for a in session.scalars(select(DriftAlarm).order_by(DriftAlarm.id))
        ]


def _quiet(_wearer: Wearer) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0)


def _moved(_wearer: Wearer) -> tuple[float, float, float]:
    return (2.0, 2.0, -2.0)


def test_a_quiet_world_rings_nothing(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    _live(controller, wearers, _quiet)
    _live_and_look(controller, wearers, _quiet, 9)
    assert _alarms(database) == []
    scopes = {
        (f.scope, f.key)
        for look in controller.parts.services.drift_watch.looks()
        for f in look.findings
    }
    assert ("fleet", "*") in scopes
    assert ("device", "d0") in scopes


def test_a_changed_world_rings_once_it_lasted(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    _live(controller, wearers, _quiet)
    _look(controller)
    _live(controller, wearers, _moved)
    _look(controller, 9)
    assert _alarms(database) == [], "to look again at the same windows is no evidence"
    _live_and_look(controller, wearers, _moved, 5)
    fleet = [alarm for alarm in _alarms(database) if alarm[0] == "fleet"]
    assert fleet == [("fleet", "*", "world_changed", None, True)]
    with database.reading() as session:
        raised = session.scalars(select(Event).where(Event.kind == "drift.raised")).all()
        assert any(event.data["cause"] == "world_changed" for event in raised)
        alarm = session.scalars(select(DriftAlarm).where(DriftAlarm.scope == "fleet")).one()
        assert alarm.evidence["features"]
        assert alarm.evidence["explanation"]


def test_a_version_that_nobody_runs_has_no_open_alarm(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    _live(controller, wearers, _quiet)
    _live(controller, wearers, _moved)
    _live_and_look(controller, wearers, _moved, 3)
    assert any(open_ for *_, open_ in _alarms(database))
    successor = controller.publish("2", seed=2, baseline=True)
    for wearer in wearers:
        controller.takes(_runs(wearer.device, successor).hello())
    _look(controller)
    assert not any(open_ for *_, open_ in _alarms(database))
    with database.reading() as session:
        cleared = session.scalars(select(Event).where(Event.kind == "drift.cleared")).all()
        assert "no device runs this version any more" in {event.data["why"] for event in cleared}


def test_one_broken_sensor_is_told_apart(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    def broken(wearer: Wearer) -> tuple[float, float, float]:
        return (6.0, 6.0, 0.0) if wearer is wearers[0] else (0.0, 0.0, 0.0)

    _live(controller, wearers, _quiet)
    _live(controller, wearers, broken)
    _live_and_look(controller, wearers, broken, 3)
    assert _alarms(database) == [("device", "d0", "sensor_fault", "accelerometer", True)]
    with database.reading() as session:
        assert drift.untrusted_until(session, "main") == {"d0": float("inf")}


def test_a_restart_reads_the_windows_again(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    from edgeloop_controller.services.drift_watch import DriftWatch

    _live(controller, wearers, _quiet)
    _look(controller)
    services = controller.parts.services
    again = DriftWatch(database, services.registry, services.clock, services.config.drift)
    again.look()
    before, after = services.drift_watch.looks(), again.looks()
    assert before
    assert [dataclasses.replace(look, at=0) for look in after] == [
        dataclasses.replace(look, at=0) for look in before
    ]


def test_the_reference_is_what_came_first_however_long_ago(
    controller: Any, database: Database, wearers: list[Wearer]
) -> None:
    """A restart long after the world changed must not take the changed world for the usual one."""
    from edgeloop_controller.services.drift_watch import DriftWatch

    _live(controller, wearers, _quiet)
    controller.clock.advance(30 * 86400.0)
    _live(controller, wearers, _moved)
    services = controller.parts.services
    again = DriftWatch(database, services.registry, services.clock, services.config.drift)
    again.look()
    (look,) = again.looks()
    assert look.findings[0].cause == "world_changed"


def test_a_device_that_fell_silent_is_not_judged_by_its_past(
    controller: Any, wearers: list[Wearer]
) -> None:
    _live(controller, wearers, _quiet)
    _live(controller, wearers, _quiet)
    controller.clock.advance(2 * 86400.0)
    _live_and_look(controller, wearers[1:], _quiet, 1)
    (look,) = controller.parts.services.drift_watch.looks()
    judged = {finding.key for finding in look.findings if finding.scope == "device"}
    assert judged == {"d1", "d2", "d3", "d4"}
