"""Fleet over the real application: typed answers, rollouts by handle, errors with words."""

from typing import Any

import httpx
import pytest

from edgeloop import (
    AnswerError,
    ApiError,
    EdgeloopError,
    Fleet,
    RolloutHaltedError,
    RolloutTimeoutError,
)
from edgeloop.documents.why import Concern

QUICK = {"soak_s": 0, "min_compared": 0, "probation": {"min_s": 1}}


def test_the_fleet_is_read_as_documents(fleet: Fleet, controller: Any, make_device: Any) -> None:
    assert fleet.health().devices.total == 0
    assert (fleet.devices(), fleet.models(), fleet.rollouts(), fleet.training_runs()) == (
        [],
        [],
        [],
        [],
    )
    controller.publish("1")
    controller.takes(make_device("d1", labels={"site": "lab"}).hello(), make_device("d-2").hello())
    assert [one.id for one in fleet.devices("site=lab")] == ["d1"]
    assert fleet.device("d1").inventory.architecture == "x86_64"
    assert fleet.label_device("d1", site="field", spare="yes").labels["spare"] == "yes"
    assert fleet.label_device("d1", spare=None).labels == {"site": "field"}
    assert fleet.quarantine("d1", "odd").quarantine == "odd"
    assert fleet.quarantine("d1", "").quarantine == ""
    told = fleet.why("d1")
    assert told.known
    assert {one.concern for one in told.explanations} <= set(Concern)
    assert [one.latest for one in fleet.models()] == ["1"]
    assert [one.version for one in fleet.versions("tiny")] == ["1"]
    assert fleet.version("tiny", "1").manifest.labels == ("still", "walk")
    assert fleet.lineage("tiny", "1").chain[0].kind == "version"
    assert [one.kind for one in fleet.events("version.*")] == ["version.published"]
    assert fleet.policies().items == []


def test_a_rollout_is_planned_started_followed_and_done(
    fleet: Fleet, controller: Any, make_device: Any, capsys: Any
) -> None:
    controller.publish("1")
    device = make_device("d1")
    controller.takes(device.hello())
    assert fleet.plan("tiny", "1", waves=["100%"], terms=QUICK).waves[0].devices == ["d1"]
    rollout = fleet.rollout("tiny", "1", waves=["100%"], terms=QUICK)
    assert rollout.document.terms["soak_s"] == 0

    def a_device_obeys(_seconds: float) -> None:
        controller.parts.reconciler.tick()
        if controller.broker.desired("d1"):
            controller.takes(device.obeys(controller.broker.desired("d1")[-1]))
        controller.clock.advance(5.0)

    done = rollout.follow(60.0, sleep=a_device_obeys)
    assert (done.status, done.members.committed) == ("done", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny@1 wave 1/1 running: no device yet")
    assert "1 committed" in lines[-1]
    assert len(lines) == len(set(lines)), "a line for a change, none for a look"
    assert fleet.get_rollout(rollout.id).status == "done"


def test_a_halted_rollout_raises_with_the_verdict(
    fleet: Fleet, controller: Any, make_device: Any
) -> None:
    controller.publish("1")
    device = make_device("d1")
    controller.takes(device.hello())
    rollout = fleet.rollout("tiny", "1", waves=["100%"], terms=QUICK)

    def a_device_refuses(_seconds: float) -> None:
        controller.parts.reconciler.tick()
        if controller.broker.desired("d1"):
            desired = controller.broker.desired("d1")[-1]
            controller.takes(device.obeys(desired, refuse="nan or inf"))

    with pytest.raises(RolloutHaltedError, match="1 of 1 device rolled tiny@1 back") as caught:
        rollout.follow(60.0, show=False, sleep=a_device_refuses)
    assert "wave 1 of 1" in str(caught.value)
    assert "hint: " in str(caught.value)
    assert caught.value.document.verdicts[0].halted


def test_following_ends_in_time_and_steering_works(fleet: Fleet, controller: Any) -> None:
    controller.publish("1")
    rollout = fleet.rollout(
        "tiny", "1", allow_empty=True, waves=["1", "100%"], terms={"schedule": {"approve": [2]}}
    )
    with pytest.raises(RolloutTimeoutError, match=r"did not end in 0\.1 s; it is running"):
        rollout.follow(0.1, show=False)
    assert rollout.pause().status == "paused"
    assert rollout.resume().status == "running"
    assert rollout.approve().approvals[0].by == "ada", "the actor, where nobody else is named"
    assert rollout.abort("enough").status == "aborted"
    with pytest.raises(RolloutHaltedError, match="aborted"):
        rollout.follow(show=False)


def test_a_refusal_says_what_where_and_how_to_mend(fleet: Fleet) -> None:
    with pytest.raises(ApiError, match="no device 'd9'") as caught:
        fleet.device("d9")
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert caught.value.hint in str(caught.value)
    with pytest.raises(ApiError, match=r"terms\.soak"):
        fleet.rollout("tiny", "1", terms={"soak": 1})


def test_no_controller_and_one_that_is_none() -> None:
    with Fleet("http://127.0.0.1:1") as fleet, pytest.raises(EdgeloopError, match="edgeloop serve"):
        fleet.health()
    strange = httpx.MockTransport(lambda _request: httpx.Response(200, json={"status": "fine"}))
    with (
        Fleet("http://x", transport=strange) as fleet,
        pytest.raises(AnswerError, match=r"GET /v1/health of http://x .* status: .*"),
    ):
        fleet.health()
    with pytest.raises(EdgeloopError, match="use ASCII"):
        Fleet(actor="Zoë")


def test_address_and_actor_are_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_URL", "http://there:1/")
    monkeypatch.setenv("EDGELOOP_ACTOR", "bo")
    with Fleet() as fleet:
        assert (fleet.client.url, fleet.client.actor) == ("http://there:1", "bo")
    assert repr(fleet) == "Fleet('http://there:1')"


def test_a_controller_that_goes_away_is_waited_for(capsys: Any) -> None:
    detail = {
        "id": 1,
        "name": "a",
        "version": "1",
        "manifest_digest": "f",
        "slot": "main",
        "selector": "all",
        "waves": ["100%"],
        "wave": 1,
        "verdict": "",
        "started_at": 0,
        "wave_started_at": None,
        "ended_at": None,
        "training_run_id": None,
        "terms": {},
        "members": dict.fromkeys(
            ("offered", "committed", "failed", "withdrawn", "ineligible", "held"), 0
        ),
        "approvals": [],
        "devices": [],
        "verdicts": [],
    }
    answers = [
        httpx.Response(200, json=detail | {"status": "running"}),
        httpx.Response(200, json=detail | {"status": "running"}),
        httpx.Response(503, json={"error": {"code": "x", "message": "away", "hint": ""}}),
        httpx.ConnectError("refused"),
        httpx.Response(200, json=detail | {"status": "done"}),
    ]

    def answer(_request: httpx.Request) -> httpx.Response:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    with Fleet("http://x", transport=httpx.MockTransport(answer)) as fleet:
        rollout = fleet.get_rollout(1)
        answers.insert(0, httpx.Response(200, json=detail | {"status": "running"}))
        assert rollout.follow(60.0, sleep=lambda _s: None).status == "done"
    first, away, refused, done = capsys.readouterr().out.splitlines()
    assert first == "a@1 wave 1/1 running: no device yet", "once, although it was seen twice"
    assert "[away]" in away
    assert "no controller answers at http://x" in refused
    assert "done" in done
