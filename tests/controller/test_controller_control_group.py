"""The control group, from windows in the database to a verdict that can be read."""

import json
from typing import Any

import numpy as np
import pytest

from edgeloop_controller.core.rollout import ProbationTerms, RolloutTerms
from edgeloop_controller.services import control_log
from edgeloop_controller.services.control_log import ControlLog
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.store import rollouts, verdicts
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Rollout
from edgeloop_protocol.messages import (
    DeviceEvent,
    Record,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic

DEVICES = 80
EPOCH = "a" * 16
TERMS = RolloutTerms(
    soak_s=10,
    min_compared=0,
    min_watched=100,
    probation=ProbationTerms(min_s=0.1, compare=False),
)


class Fleet:
    """80 devices at two sites that run version 1 and have told of it."""

    def __init__(self, controller: Any, make_device: Any, baseline: bool = False) -> None:
        self.controller = controller
        self.devices = [
            make_device(f"d{n}", labels={"site": f"plant-{n % 2}"}) for n in range(DEVICES)
        ]
        self.sent: dict[str, int] = {}
        controller.takes(*(device.hello() for device in self.devices))
        self.old = controller.publish("1", baseline=baseline)
        self.start("1", waves=("100%",))
        for _ in range(3):
            self.turn()
            controller.clock.advance(20)
        self.new = controller.publish("2", seed=2, baseline=baseline)
        self.tell()
        controller.clock.advance(1)

    def start(self, version: str, waves: tuple[str, ...]) -> int:
        request = RolloutRequest("tiny", version, "all", waves, TERMS)
        return int(self.controller.parts.services.rollouts.start(request))

    def turn(self) -> None:
        self.controller.parts.reconciler.tick()
        for device in self.devices:
            told = self.controller.broker.desired(device.id)
            if told and told[-1].revision > device.revision:
                self.controller.takes(device.obeys(told[-1]))

    def members(self) -> list[Any]:
        return [device for device in self.devices if device.slots[0].champion == self.new]

    def tell(self, slower: float = 1.0, confidence: int = 9) -> None:
        """A window of each; those on the new version answer so much slower."""
        said = []
        for number, device in enumerate(self.devices):
            version = device.slots[0].champion
            factor = slower if version == self.new else 1.0
            window = WindowSummary(
                slot="main",
                version=version,
                started_at=0.0,
                ended_at=1.0,
                count=120,
                latency_p50_us=1.0,
                latency_p95_us=(1000.0 + number) * factor,
                memory_bytes=1_000_000,
                predictions=(60, 60),
                confidence=tuple(120 if bin_ == confidence else 0 for bin_ in range(10)),
            )
            said.append(self._record(device.id, window))
        self.controller.takes(*said)

    def crash(self, device: Any, version: VersionRef) -> None:
        event = DeviceEvent(at=0.0, name="runner_lost", slot="main", version=version)
        self.controller.takes(self._record(device.id, event))

    def _record(self, device_id: str, body: Any) -> Inbound:
        number = self.sent[device_id] = self.sent.get(device_id, 0) + 1
        batch = TelemetryBatch(
            epoch=EPOCH, base=number, records=(Record(sequence=number, body=body),)
        )
        return Inbound(up_topic(device_id, Up.TELEMETRY), encode(batch))


@pytest.fixture
def fleet(controller: Any, make_device: Any) -> Fleet:
    return Fleet(controller, make_device)


def play(fleet: Fleet, slower: float) -> int:
    """To the first look of the first wave, 10 s after it began."""
    rollout = fleet.start("2", waves=("10%", "100%"))
    fleet.turn()
    assert len(fleet.members()) == DEVICES // 10
    assert {device.labels["site"] for device in fleet.members()} == {"plant-0", "plant-1"}
    fleet.controller.clock.advance(5)
    fleet.tell(slower)
    fleet.controller.clock.advance(5)
    fleet.turn()
    return rollout


def test_a_slow_version_is_halted_beside_those_still_on_the_old(
    fleet: Fleet, database: Database
) -> None:
    rollout = play(fleet, slower=3.0)
    with database.reading() as session:
        row = session.get(Rollout, rollout)
        assert row is not None
        assert row.status == "halted"
        said = {one.gate: one for one in verdicts.of_rollout(session, rollout)}
    assert [gate for gate, one in said.items() if one.halted] == ["latency"]
    latency = said["latency"]
    assert row.verdict == latency.sentence
    assert latency.sentence.startswith("p95 latency became 3.00 to 3.00 times what it was (99.9")
    assert "on 8 devices with tiny@2, against 72 still on tiny@1" in latency.sentence
    assert latency.evidence["members"] == 8
    assert json.dumps(latency.evidence)


def test_a_good_version_goes_on_and_its_verdicts_are_kept(fleet: Fleet, database: Database) -> None:
    """Although a device tells of a version that was never published here."""
    stranger = VersionRef(name="other", version="9", manifest_digest="9" * 64)
    fleet.devices[-1].slots = (
        fleet.devices[-1].slots[0].model_copy(update={"champion": stranger}),
    )
    fleet.tell()
    fleet.controller.clock.advance(1)
    rollout = play(fleet, slower=1.0)
    fleet.controller.clock.advance(10)
    fleet.turn()
    with database.reading() as session:
        row = session.get(Rollout, rollout)
        assert row is not None
        assert (row.status, row.wave) == ("running", 1)
        kept = verdicts.of_rollout(session, rollout)
    assert kept[0].gate == "failures"
    assert len(kept) == 9
    assert next(one for one in kept if one.gate == "memory").looked == 8


def test_a_wave_waits_until_its_devices_were_watched(fleet: Fleet, database: Database) -> None:
    rollout = fleet.start("2", waves=("10%", "100%"))
    fleet.turn()
    fleet.turn()
    for device in fleet.members():
        fleet.devices.remove(device)  # they say no more
    fleet.controller.clock.advance(5)
    fleet.tell()
    fleet.controller.clock.advance(5)
    fleet.turn()
    fleet.controller.clock.advance(15)
    fleet.turn()
    with database.reading() as session:
        row = session.get(Rollout, rollout)
        assert row is not None
        assert row.wave == 0
        assert "has watched 0 of 8 devices over 100 examples" in row.verdict


def looked(fleet: Fleet, database: Database, rollout: int, log: ControlLog) -> Any:
    with database.reading() as session:
        row = rollouts.require(session, rollout)
        state = rollouts.state_of(session, row)
        log.read(session, row, DEVICES, fleet.controller.clock.wall())
        known = fleet.controller.parts.reconciler._fleet.devices
        return log.look(row, state.members, known.keys(), known)


def test_what_is_read_again_after_a_restart_is_the_same(
    controller: Any, make_device: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(controller, make_device, baseline=True)
    registry = fleet.controller.parts.services.registry
    rollout = fleet.start("2", waves=("10%", "100%"))
    fleet.turn()
    log = ControlLog(registry)
    assert looked(fleet, database, rollout, log) is None
    for seconds in (5, 5, 4, 6):
        fleet.controller.clock.advance(seconds)
        fleet.tell(slower=1.2)
        fleet.crash(fleet.members()[0], fleet.new)
        seen = looked(fleet, database, rollout, log)
    again = looked(fleet, database, rollout, ControlLog(registry))
    assert (seen.number, seen.wave) == (again.number, again.wave) == (2, 1)
    assert seen.strata == again.strata
    assert seen.is_member.tolist() == again.is_member.tolist()
    assert seen.is_member.sum() == DEVICES // 10
    for measure, values in seen.changes.by_measure.items():
        assert again.changes.by_measure[measure].tolist() == values.tolist()
    assert np.isfinite(seen.changes.by_measure["confidence"]).all()
    crashes = seen.changes.by_measure["crashes"]
    assert crashes.sum() == 3, "what came at the moment of the look is the next one's"
    assert looked(fleet, database, rollout, log) is seen, "the same, as long as nothing moved"
    monkeypatch.setattr(control_log, "TRACKED_MAX", 20)
    fewer = looked(fleet, database, rollout, ControlLog(registry))
    assert 5 <= len(fewer.strata) < 40
