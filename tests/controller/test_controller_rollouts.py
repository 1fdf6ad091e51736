"""Rollouts through the services: from an assignment to a committed fleet, or back."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from edgeloop_controller.core.rollout import ProbationTerms, RolloutTerms
from edgeloop_controller.errors import ConflictError, NotFoundError, SelectorError, WaveError
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.inbox import Inbound, Inbox
from edgeloop_controller.services.ingest import Ingest
from edgeloop_controller.services.reconcile import Reconciler
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Assignment, Device, Event, Rollout, RolloutMember
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Presence, Refusal, SlotReported, encode
from edgeloop_protocol.topics import Up, parse_down_topic, up_topic
from edgeloop_simulators.twins.clock import SimulatedClock

TERMS = RolloutTerms(soak_s=0, min_compared=0, probation=ProbationTerms(min_s=0.1))


def _start(controller: Any, version: str = "1", **changes: Any) -> int:
    request = {
        "name": "tiny",
        "version": version,
        "selector": "all",
        "waves": ("1", "100%"),
        "terms": TERMS,
    } | changes
    return int(controller.parts.services.rollouts.start(RolloutRequest(**request)))


def _join(controller: Any, make_device: Any, *ids: str, **labels: str) -> list[Any]:
    devices = [make_device(device_id, labels=labels) for device_id in ids]
    controller.takes(*(device.hello() for device in devices))
    return devices


def _turn(controller: Any, devices: list[Any], refuse: str = "") -> None:
    """One tick, then each device that was told something new obeys."""
    controller.parts.reconciler.tick()
    for device in devices:
        told = controller.broker.desired(device.id)
        if told and told[-1].revision > device.revision:
            controller.takes(device.obeys(told[-1], refuse))


def _status(database: Database, rollout_id: int) -> str:
    with database.reading() as session:
        rollout = session.get(Rollout, rollout_id)
        assert rollout is not None
        return rollout.status


def _running(devices: list[Any]) -> list[str | None]:
    return [
        d.slots[0].champion.version if d.slots and d.slots[0].champion else None for d in devices
    ]


def test_a_rollout_reaches_all_in_waves(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1", "d2", "d3")
    controller.publish("1")
    rollout = _start(controller)
    _turn(controller, devices)
    assert sorted(v or "" for v in _running(devices)) == ["", "", "1"]
    for _ in range(5):
        _turn(controller, devices)
    assert _running(devices) == ["1", "1", "1"]
    assert _status(database, rollout) == "done"


def test_a_device_that_comes_later_is_given_what_is_done(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1")
    controller.publish("1")
    rollout = _start(controller)
    for _ in range(5):
        _turn(controller, devices)
    assert _status(database, rollout) == "done"
    late = _join(controller, make_device, "d9")
    _turn(controller, late)
    assert _running(late) == ["1"]


def test_a_newer_finished_rollout_speaks_for_its_devices(controller: Any, make_device: Any) -> None:
    devices = _join(controller, make_device, "d1")
    for version in ("1", "2"):
        controller.publish(version, seed=int(version))
        _start(controller, version)
        for _ in range(5):
            _turn(controller, devices)
    assert _running(devices) == ["2"]
    late = _join(controller, make_device, "d9")
    for _ in range(3):
        _turn(controller, late + devices)
    assert _running(late + devices) == ["2", "2"]
    assert {
        d.slots[0].offer.version for d in controller.broker.desired("d9") if d.slots[0].offer
    } == {"2"}


def test_it_speaks_for_them_from_the_tick_on_in_which_it_ends(
    controller: Any, database: Database, make_device: Any
) -> None:
    """An older finished rollout that matches the device by now must not take it over between."""
    devices = _join(controller, make_device, "d1", site="a")
    devices += _join(controller, make_device, "d2", site="b")
    controller.publish("1")
    controller.publish("2", seed=1)
    _start(controller, selector="site=a")
    for _ in range(4):
        _turn(controller, devices)
    _start(controller, version="2", selector="device=d2")
    _turn(controller, devices)
    devices[1].labels = {"site": "a"}
    controller.takes(devices[1].hello())
    for _ in range(4):
        _turn(controller, devices)
    assert _running(devices) == ["1", "2"]
    with database.reading() as session:
        named = session.scalars(select(RolloutMember.rollout_id).order_by(RolloutMember.device_id))
        assert named.all() == [1, 2]


def test_a_relabelled_device_is_spoken_for_by_the_newest_that_matches(
    controller: Any, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1", site="a")
    devices += _join(controller, make_device, "d2", site="b")
    devices += _join(controller, make_device, "d3", zone="x")
    controller.publish("1")
    controller.publish("2", seed=1)
    _start(controller, selector="site=a")
    _start(controller, version="2", selector="zone=x")
    for _ in range(5):
        _turn(controller, devices)
    assert _running(devices) == ["1", None, "2"]
    devices[1].labels = {"site": "a", "zone": "x"}
    controller.takes(devices[1].hello())
    for _ in range(3):
        _turn(controller, devices)
    assert _running(devices) == ["1", "2", "2"]


def test_a_canary_that_fails_halts_it_and_goes_back(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1", "d2", "d3")
    controller.publish("1")
    _start(controller, waves=("100%",))
    for _ in range(5):
        _turn(controller, devices)
    controller.publish("2", seed=2)
    rollout = _start(controller, "2", terms=RolloutTerms(soak_s=0, max_failed_fraction=0))
    for _ in range(5):
        _turn(controller, devices, refuse="NaN in its answers")
    assert _status(database, rollout) == "halted"
    assert _running(devices) == ["1", "1", "1"]
    with database.reading() as session:
        offered = session.scalars(
            select(RolloutMember).where(RolloutMember.rollout_id == rollout)
        ).all()
        assert len(offered) == 1
        kinds = set(session.scalars(select(Event.kind)))
    assert "rollout.halted" in kinds


def test_it_can_be_asked_what_its_gates_judged_by(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1")
    controller.publish("1")
    rollout = _start(controller)
    assert controller.parts.reconciler.judged() == []
    halted = []
    for _ in range(2):
        _turn(controller, devices, refuse="NaN in its answers")
        (judged,) = controller.parts.reconciler.judged()
        halted.append([verdict.gate for verdict in judged.verdicts if verdict.halted])
    assert judged.spec.id == rollout
    assert halted == [[], ["failures"]]
    assert _status(database, rollout) == "halted"


def test_a_version_that_was_halted_can_be_rolled_out_again(
    controller: Any, database: Database, make_device: Any
) -> None:
    """The refusal of the first rollout still stands in what the device last reported."""
    (device,) = devices = _join(controller, make_device, "d1")
    for version in ("1", "2"):
        target = controller.publish(version, seed=int(version))
        rollout = _start(controller, version)
        for _ in range(4):
            _turn(controller, devices, refuse="" if version == "1" else "crashed")
    assert _status(database, rollout) == "halted"
    device.revision = controller.broker.desired("d1")[-1].revision  # it runs 1, as it is told
    device.slots = (
        device.slots[0].model_copy(update={"refused": Refusal(version=target, cause="crashed")}),
    )
    controller.takes(device.reported())
    again = _start(controller, "2")
    for _ in range(3):
        controller.parts.reconciler.tick()
        assert _status(database, again) == "running"
    for _ in range(4):
        _turn(controller, devices)
    assert _status(database, again) == "done"


def test_paused_offers_nothing_and_resumed_goes_on(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1", "d2")
    controller.publish("1")
    rollout = _start(controller)
    controller.parts.services.rollouts.pause(rollout)
    for _ in range(3):
        _turn(controller, devices)
    assert _running(devices) == [None, None]
    with pytest.raises(ConflictError):
        controller.parts.services.rollouts.pause(rollout)
    controller.parts.services.rollouts.resume(rollout)
    for _ in range(5):
        _turn(controller, devices)
    assert _running(devices) == ["1", "1"]


def test_aborted_takes_back_what_is_not_committed(
    controller: Any, database: Database, make_device: Any
) -> None:
    _join(controller, make_device, "d1")
    controller.publish("1")
    rollout = _start(controller)
    controller.parts.reconciler.tick()
    assert controller.broker.desired("d1")[-1].slots[0].offer is not None
    controller.parts.services.rollouts.abort(rollout, "changed my mind")
    assert controller.broker.desired("d1")[-1].slots[0].offer is None
    with pytest.raises(ConflictError):
        controller.parts.services.rollouts.abort(rollout, "again")
    with database.reading() as session:
        row = session.get(Assignment, ("d1", "main"))
        assert row is not None
        assert row.manifest_digest is None


def test_what_is_refused_says_why(controller: Any, make_device: Any) -> None:
    with pytest.raises(NotFoundError, match="no model"):
        _start(controller)
    controller.publish("1")
    with pytest.raises(NotFoundError, match="no version"):
        _start(controller, "7")
    with pytest.raises(NotFoundError, match="no device matches"):
        _start(controller)
    _join(controller, make_device, "d1", site="lab")
    with pytest.raises(SelectorError):
        _start(controller, selector="site=")
    with pytest.raises(WaveError):
        _start(controller, waves=("50%", "10%"))
    with pytest.raises(NotFoundError, match="no device matches"):
        _start(controller, selector="site=field")
    _start(controller, selector="site=field", allow_empty=True)
    with pytest.raises(NotFoundError):
        controller.parts.services.rollouts.pause(99)


def test_two_rollouts_never_share_a_slot_of_a_device(controller: Any, make_device: Any) -> None:
    _join(controller, make_device, "d1", site="a")
    _join(controller, make_device, "d2", site="b")
    controller.publish("1")
    first = _start(controller, selector="site=a")
    with pytest.raises(ConflictError, match="d1"):
        _start(controller)
    _start(controller, selector="site=b")
    _start(controller, slot="other")
    controller.parts.services.rollouts.pause(first)
    with pytest.raises(ConflictError):
        _start(controller, selector="site=a")
    controller.parts.services.rollouts.abort(first, "")
    _start(controller, selector="site=a")


def test_what_one_rollout_holds_no_other_offers(
    controller: Any, database: Database, make_device: Any
) -> None:
    (device,) = _join(controller, make_device, "d1", site="a")
    controller.publish("1")
    controller.publish("2", seed=1)
    holder = _start(controller, selector="site=a")
    other = _start(controller, version="2", selector="site=b", allow_empty=True)
    controller.parts.reconciler.tick()
    device.labels = {"site": "b"}
    controller.takes(device.hello())

    def assigned_by() -> int | None:
        controller.parts.reconciler.tick()
        with database.reading() as session:
            return session.scalars(select(Assignment.rollout_id)).one()

    assert assigned_by() == holder
    controller.parts.services.rollouts.abort(holder, "asked to")
    assert assigned_by() == other


def test_the_desired_state_is_said_again_until_it_is_reported(
    controller: Any, database: Database, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device,) = _join(controller, make_device, "d1")
    controller.publish("1")
    _start(controller)
    controller.broker.up = False  # what the first tick says is lost
    controller.parts.reconciler.tick()
    assert controller.broker.desired("d1") == []
    controller.broker.up = True
    controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == 1
    controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == 1  # not at every tick
    controller.takes(device.obeys(controller.broker.desired("d1")[-1]))
    monkeypatch.setattr("edgeloop_controller.services.desired.SAY_AGAIN_S", 0.0)
    controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == 1


def test_a_hello_is_answered_when_the_revision_differs(controller: Any, make_device: Any) -> None:
    """EL-STATE-2."""
    devices = _join(controller, make_device, "d1")
    controller.publish("1")
    _start(controller)
    _turn(controller, devices)
    told = len(controller.broker.desired("d1"))
    controller.takes(devices[0].hello())
    assert len(controller.broker.desired("d1")) == told
    devices[0].revision = 0
    controller.takes(devices[0].hello())
    assert len(controller.broker.desired("d1")) == told + 1


def test_the_revision_goes_on_from_a_device_that_knows_a_higher_one(
    controller: Any, database: Database, make_device: Any
) -> None:
    """EL-STATE-3."""
    device = make_device("d1", revision=41)
    controller.takes(device.hello())
    assert controller.broker.desired("d1")[-1].revision == 42
    controller.publish("1")
    _start(controller)
    device.revision = 42
    controller.takes(device.reported())
    controller.parts.reconciler.tick()
    assert controller.broker.desired("d1")[-1].revision == 43
    with database.reading() as session:
        row = session.get(Device, "d1")
        assert row is not None
        assert row.desired_revision == 43


def test_after_a_reconnect_every_device_is_asked_at_a_bounded_rate(
    controller: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop_controller.services.desired.SAID_AGAIN_MAX", 2)
    devices = _join(controller, make_device, "d1", "d2", "d3", "d4", "new")
    controller.publish("1")
    _start(controller, selector="device!=new", waves=("100%",))
    for _ in range(3):
        _turn(controller, devices)
    gone = Presence(epoch=devices[0].epoch, online=False)  # it may be back: we were away
    controller.takes(Inbound(up_topic("d1", Up.PRESENCE), encode(gone)))
    controller.broker.said.clear()
    controller.parts.reconciler.tick()
    assert controller.broker.said == []
    controller.parts.services.listener.connected()
    asked: list[str] = []
    for up in (True, False, True, True, True):  # the broker goes away in between
        controller.broker.up = up
        controller.broker.said.clear()
        controller.parts.reconciler.tick()
        assert len(controller.broker.said) <= 2
        asked += [parse_down_topic(topic).device_id for topic, _ in controller.broker.said]
    assert asked == ["d2", "d3", "d4", "d1"]


def test_a_device_that_is_silent_about_its_offer_is_asked(
    controller: Any, database: Database, make_device: Any
) -> None:
    """Its report was lost although nothing was noticed: the revision stands, the slot does not."""
    (device,) = _join(controller, make_device, "d1")
    controller.publish("1")
    rollout = _start(controller)
    controller.parts.reconciler.tick()
    told = controller.broker.desired("d1")
    device.revision = told[-1].revision
    device.slots = (SlotReported(slot="main", state=SlotState.PROBATION),)
    controller.takes(device.reported())
    device.obeys(told[-1])  # never arrives
    for _ in range(29):
        controller.clock.advance(1)
        controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == len(told)
    for _ in range(12):
        controller.clock.advance(1)
        controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == len(told) + 2  # and again 10 s later
    controller.takes(device.reported())
    for _ in range(60):
        controller.clock.advance(1)
        controller.parts.reconciler.tick()
    assert _status(database, rollout) == "done"
    assert len(controller.broker.desired("d1")) == len(told) + 2


def test_a_device_that_counts_as_offline_and_lags_behind_is_asked_seldom(
    controller: Any, make_device: Any
) -> None:
    """It is back, and the broker lost its hello: nothing else would ever tell it."""
    (device, other) = _join(controller, make_device, "d1", "d2")
    controller.publish("1")
    gone = Presence(epoch=device.epoch, online=False)
    controller.takes(Inbound(up_topic("d1", Up.PRESENCE), encode(gone)))
    _start(controller, waves=("100%",))
    controller.broker.said.clear()
    asked_at = []
    for _ in range(650):
        controller.clock.advance(1)
        for answering in controller.broker.desired("d2"):
            other.obeys(answering)
            controller.takes(other.reported())
        controller.broker.said.clear()
        controller.parts.reconciler.tick()
        if controller.broker.desired("d1"):
            asked_at.append(controller.clock.monotonic())
    assert 2 <= len(asked_at) <= 4
    assert asked_at[-1] - asked_at[-2] == 300


def test_of_many_that_are_offline_and_lag_behind_each_has_its_turn(
    controller: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop_controller.services.desired.OFFLINE_ASKED_MAX", 2)
    devices = _join(controller, make_device, "d1", "d2", "d3")
    controller.publish("1")
    _start(controller, waves=("100%",))
    controller.parts.reconciler.tick()
    for device in devices:
        gone = Presence(epoch=device.epoch, online=False)
        controller.takes(Inbound(up_topic(device.id, Up.PRESENCE), encode(gone)))
    controller.broker.said.clear()
    asked = []
    for _ in range(3):
        controller.clock.advance(300)
        controller.parts.reconciler.tick()
        asked.append([parse_down_topic(topic).device_id for topic, _ in controller.broker.said])
        controller.broker.said.clear()
    assert asked == [["d1", "d2"], ["d3"], ["d1", "d2"]]


def test_what_a_full_inbox_refused_is_asked_for(controller: Any, make_device: Any) -> None:
    (device,) = _join(controller, make_device, "d1")
    controller.publish("1")
    _start(controller)
    for _ in range(3):
        _turn(controller, [device])
    controller.broker.said.clear()
    services = controller.parts.services
    services.inbox.close()
    services.listener.message(*device.reported())
    controller.parts.reconciler.tick()
    assert len(controller.broker.desired("d1")) == 1


def test_a_silent_device_counts_as_offline(database: Database, make_device: Any) -> None:
    clock = SimulatedClock()
    broker = Remembering()
    registry = Registry(Nothing())
    desired = DesiredPublisher(database, broker, clock)
    unheard = Unheard(database, broker, clock)
    ingest = Ingest(database, Inbox(10, 1000), broker, desired, unheard, clock, 10)
    reconciler = Reconciler(database, registry, desired, unheard, clock, offline_after_s=60)
    ingest.process([make_device("d1").hello()])

    def online() -> bool:
        reconciler.tick()
        with database.reading() as session:
            device = session.get(Device, "d1")
            assert device is not None
            return device.online

    clock.advance(59)
    assert online()
    clock.advance(2)
    assert not online()


class Remembering:
    def publish(self, _topic: str, _payload: bytes) -> bool:
        return True


class Nothing:
    """An artifact store that is not asked."""

    def put(self, content: bytes) -> str:
        raise NotImplementedError

    def get(self, digest: str) -> bytes:
        raise NotImplementedError

    def local_path(self, digest: str) -> Path:
        raise NotImplementedError


def test_a_failing_rollout_does_not_stop_the_others(
    controller: Any, database: Database, make_device: Any
) -> None:
    devices = _join(controller, make_device, "d1", site="a")
    devices += _join(controller, make_device, "d2", site="b")
    controller.publish("1")
    broken = _start(controller, selector="site=a")
    _start(controller, selector="site=b")
    with database.writing() as session:
        rollout = session.get(Rollout, broken)
        assert rollout is not None
        rollout.terms = {"nonsense": 1, "soak_s": "x"}
    for _ in range(4):
        _turn(controller, devices)
    assert _running(devices) == [None, "1"]
