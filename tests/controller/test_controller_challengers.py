"""Challengers at the controller: who is given one, what they tell, and the commands."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from edgeloop_controller.api.app import create_app
from edgeloop_controller.cli import challengers as commands
from edgeloop_controller.cli.main import app
from edgeloop_controller.core.rollout import ProbationTerms, RolloutTerms
from edgeloop_controller.errors import ConflictError, NotFoundError, SelectorError
from edgeloop_controller.services import challenger_turn
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.services.rollouts import RolloutRequest
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import (
    ChallengerReported,
    Record,
    ShadowBudget,
    ShadowSummary,
    SlotReported,
    TelemetryBatch,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.topics import Up, up_topic

BUDGET = ShadowBudget(cpu_fraction=0.2, memory_bytes=5000)


@pytest.fixture
def fleet(controller: Any, make_device: Any) -> list[Any]:
    """a and b run tiny@1; both have published versions 1 and 2 to look forward to."""
    version = controller.publish("1")
    controller.publish("2", seed=1)
    running = SlotReported(slot="main", state=SlotState.COMMITTED, champion=version)
    devices = [
        make_device(name, labels={"site": site}, slots=(running,))
        for name, site in (("a", "lab"), ("b", "hall"))
    ]
    controller.takes(*(device.hello() for device in devices))
    return devices


def start(controller: Any, selector: str = "all", version: str = "2", slot: str = "main") -> int:
    request = ChallengerRequest("tiny", version, selector, slot, BUDGET)
    return int(controller.parts.services.challengers.start(request))


def challenged(controller: Any, device_id: str) -> str | None:
    """The version that the device was told last to run in shadow."""
    told = controller.broker.desired(device_id)
    slots = [slot for slot in told[-1].slots if slot.slot == "main"] if told else []
    return slots[0].challenger.offer.version if slots and slots[0].challenger else None


def summary(version: VersionRef, champion: VersionRef, **figures: Any) -> ShadowSummary:
    window = WindowSummary(
        slot="main",
        version=version,
        started_at=0.0,
        ended_at=10.0,
        count=figures.get("count", 0),
        nonfinite=figures.get("nonfinite", 0),
        latency_p50_us=1.0,
        latency_p95_us=20.0,
        memory_bytes=4000,
    )
    return ShadowSummary(
        champion=champion,
        window=window,
        disagreements=figures.get("disagreements", 0),
        skipped=figures.get("skipped", 0),
        cpu_s=figures.get("cpu_s", 0.0),
    )


def tells(device: Any, *bodies: ShadowSummary, first: int = 1) -> Inbound:
    records = tuple(Record(sequence=first + n, body=body) for n, body in enumerate(bodies))
    batch = TelemetryBatch(epoch=device.epoch, base=1, records=records)
    return Inbound(up_topic(device.id, Up.TELEMETRY), encode(batch))


def test_devices_are_told_at_the_next_tick_and_keep_what_they_run(
    controller: Any, fleet: list[Any]
) -> None:
    start(controller)
    assert not controller.broker.said
    controller.parts.reconciler.tick()
    for device in fleet:
        (slot,) = controller.broker.desired(device.id)[-1].slots
        assert slot.offer is None, "nothing new"
        assert slot.challenger.budget == BUDGET
        assert slot.challenger.offer.version == "2"


def test_who_comes_to_match_is_given_it_and_who_does_not_is_rid_of_it(
    controller: Any, fleet: list[Any], make_device: Any
) -> None:
    start(controller, "site=lab")
    controller.parts.reconciler.tick()
    assert [challenged(controller, one.id) for one in fleet] == ["2", None]
    late = make_device("c", labels={"site": "lab"}, slots=fleet[0].slots)
    controller.takes(late.hello())
    controller.parts.reconciler.tick()
    assert challenged(controller, "c") == "2"
    fleet[0].labels = {"site": "hall"}
    controller.takes(fleet[0].hello())
    controller.parts.reconciler.tick()
    assert challenged(controller, "a") is None
    assert challenged(controller, "c") == "2"


def test_a_device_without_the_slot_is_passed_over(controller: Any, make_device: Any) -> None:
    controller.publish("2")
    device = make_device("a", slots=(SlotReported(slot="other", state=SlotState.IDLE),))
    controller.takes(device.hello())
    start(controller)
    controller.parts.reconciler.tick()
    assert challenged(controller, "a") is None


def test_stopped_it_is_taken_back(controller: Any, fleet: list[Any]) -> None:
    challenger = start(controller)
    controller.parts.reconciler.tick()
    controller.parts.services.challengers.stop(challenger)
    controller.parts.reconciler.tick()
    assert [challenged(controller, one.id) for one in fleet] == [None, None]
    with pytest.raises(ConflictError, match="stopped already"):
        controller.parts.services.challengers.stop(challenger)


def test_it_stays_beside_what_a_rollout_offers(controller: Any, fleet: list[Any]) -> None:
    controller.publish("3", seed=2)
    start(controller)
    controller.parts.reconciler.tick()
    terms = RolloutTerms(soak_s=0, min_compared=0, probation=ProbationTerms(min_s=0.1))
    request = RolloutRequest("tiny", "3", "all", ("100%",), terms)
    controller.parts.services.rollouts.start(request)
    controller.parts.reconciler.tick()
    for device in fleet:
        (slot,) = controller.broker.desired(device.id)[-1].slots
        assert slot.offer.version == "3"
        assert slot.challenger.offer.version == "2"


def test_after_a_restart_nothing_is_said_twice(
    controller: Any, fleet: list[Any], database: Any, config: Any
) -> None:
    from edgeloop_controller import composition
    from edgeloop_controller.training.executor import LocalExecutor

    start(controller)
    controller.parts.reconciler.tick()
    revisions = {one.id: controller.broker.desired(one.id)[-1].revision for one in fleet}
    for device in fleet:
        device.revision = revisions[device.id]
    controller.takes(*(device.reported() for device in fleet))
    artifacts = controller.parts.services.artifacts
    parts = composition.build(
        config, database, controller.broker, controller.clock, artifacts, LocalExecutor()
    )
    controller.broker.said.clear()
    parts.reconciler.tick()
    assert not [one for one in fleet if controller.broker.desired(one.id)]


@pytest.mark.parametrize(
    ("selector", "version", "error"),
    [
        ("site=nowhere", "2", NotFoundError),
        ("all", "9", NotFoundError),
        ("site=(", "2", SelectorError),
        ("device=a", "1", ConflictError),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    controller: Any, fleet: list[Any], selector: str, version: str, error: type[Exception]
) -> None:
    start(controller)
    controller.parts.reconciler.tick()
    with pytest.raises(error):
        start(controller, selector, version)
    controller.parts.reconciler.tick()
    assert [challenged(controller, one.id) for one in fleet] == ["2", "2"]


@pytest.fixture
def told(controller: Any, fleet: list[Any]) -> dict[str, Any]:
    """What the API says after both devices told of their shadows, one of them twice."""
    first, second = fleet
    challenger = start(controller)
    controller.parts.reconciler.tick()
    champion = first.slots[0].champion
    version = controller.broker.desired("a")[-1].slots[0].challenger.offer.ref
    reported = ChallengerReported(version=version, state=ChallengeState.IN_SHADOW)
    first.slots = (first.slots[0].model_copy(update={"challenger": reported}),)
    refused = ChallengerReported(
        version=version, state=ChallengeState.REFUSED, cause="memory", detail="too much"
    )
    second.slots = (second.slots[0].model_copy(update={"challenger": refused}),)
    windows = (
        summary(version, champion, count=60, disagreements=6, skipped=20, cpu_s=1.0),
        summary(version, champion, count=20, disagreements=2, nonfinite=1, cpu_s=1.0),
    )
    message = tells(first, *windows)
    controller.takes(first.reported(), second.reported(), message, message)
    api = TestClient(create_app(controller.parts.services), base_url="http://localhost")
    document: dict[str, Any] = api.get(f"/v1/challengers/{challenger}").json()
    return document


def test_what_devices_tell_is_added_up_once(told: dict[str, Any]) -> None:
    """EL-SHADOW-4."""
    seen = told["seen"]
    assert (seen["count"], seen["disagreements"], seen["skipped"]) == (80, 8, 20)
    assert seen["nonfinite"] == 1
    assert seen["cpu_fraction"] == pytest.approx(0.1)
    assert (told["devices"], told["in_shadow"], told["refused"]) == (2, 1, 1)
    by_device = {one["device_id"]: one for one in told["by_device"]}
    assert by_device["a"]["seen"] == seen
    assert by_device["b"]["cause"] == "memory: too much"
    assert by_device["b"]["seen"] is None


def test_a_challengers_windows_are_no_champions(controller: Any, told: dict[str, Any]) -> None:
    """Drift and the gates of a rollout look at what was answered."""
    from edgeloop_controller.store import telemetry

    assert told["seen"]["count"]
    with controller.parts.services.database.reading() as session:
        assert telemetry.last_window_id(session) == 0


def test_the_commands_show_it(
    controller: Any, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = TestClient(create_app(controller.parts.services), base_url="http://localhost")

    class Client:
        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def get(self, path: str) -> Any:
            return api.get(f"/v1{path}").json()

        def post(self, path: str, body: Any = None) -> Any:
            return api.post(f"/v1{path}", json=body).json()

    monkeypatch.setattr(commands, "connected", Client)
    runner, number = CliRunner(), str(told["id"])
    shown = runner.invoke(app, ["challenger", "show", number]).stdout
    assert "tiny@2" in shown
    assert "10.0%" in shown
    assert "20%" in shown
    assert "memory: too much" in shown
    listed = runner.invoke(app, ["challenger", "list"]).stdout
    assert "1/2" in listed
    stopped = runner.invoke(app, ["challenger", "stop", number]).stdout
    assert stopped == f"challenger {number} is stopped\n"
    again = ["challenger", "start", "tiny@1", "--to", "device=a", "--cpu", "0.5"]
    started = runner.invoke(app, [*again, "--json"]).stdout
    assert json.loads(started)["budget"]["cpu_fraction"] == 0.5


def test_a_turn_that_fails_stops_nothing_else_and_is_done_again(
    controller: Any, fleet: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say, in the middle of it."""
    start(controller)
    said_again: list[bool] = []
    publisher = controller.parts.services.desired
    monkeypatch.setattr(publisher, "say_again", lambda: said_again.append(True))
    with monkeypatch.context() as broken:
        broken.setattr(challenger_turn.desired, "refresh", lambda *_: 1 / 0)
        controller.parts.reconciler.tick()
    assert said_again == [True]
    assert [challenged(controller, one.id) for one in fleet] == [None, None]
    controller.parts.reconciler.tick()
    assert [challenged(controller, one.id) for one in fleet] == ["2", "2"]
