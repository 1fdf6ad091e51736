"""`edgeloop why`: what is gathered of a device, by way of the API and the command line."""

from typing import Any

import pytest

from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.core.drift import Cause, Scope
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.core.schedule_terms import Schedule
from edgeloop_controller.services.rollouts import IfBusy, RolloutRequest
from edgeloop_controller.store import devices, events
from edgeloop_controller.store.tables import DriftAlarm
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import ChallengerReported, SlotReported

ONE_BY_ONE = RolloutTerms(probation={"compare": False})


@pytest.fixture
def fleet(controller: Any, make_device: Any) -> list[Any]:
    """Three devices that say hello, and a controller that hears them."""
    controller.parts.services.listener.connected()
    devices = [make_device(f"d{n}", labels={"site": "lab"}) for n in range(3)]
    controller.takes(*(device.hello() for device in devices))
    return devices


def roll_out(controller: Any, version: str, **changes: Any) -> int:
    request = {"name": "tiny", "selector": "site=lab", "waves": ("1", "100%"), "terms": ONE_BY_ONE}
    rollout_id: int = controller.parts.services.rollouts.start(
        RolloutRequest(version=version, **(request | changes))
    )
    controller.parts.reconciler.tick()
    return rollout_id


def situations(document: Any) -> list[str]:
    of_slots = [e for slot in document["slots"] for e in slot["explanations"]]
    return [e["situation"] for e in (*document["explanations"], *of_slots)]


def commit(controller: Any, device: Any, version: Any) -> None:
    device.revision = controller.broker.desired(device.id)[-1].revision
    device.slots = (
        SlotReported(slot="main", state=SlotState.COMMITTED, champion=version, runner_alive=True),
    )
    controller.takes(device.reported())
    controller.parts.reconciler.tick()


def test_a_rollout_as_the_devices_see_it(
    controller: Any, fleet: list[Any], cli: Any, make_package: Any
) -> None:
    version = controller.keep(make_package("1"))
    assert situations(cli.json("why", "d0")) == ["no_slot"]
    roll_out(controller, "1")
    first = next(d for d in fleet if controller.broker.desired(d.id))
    second = next(d for d in fleet if d is not first)
    assert situations(cli.json("why", first.id)) == ["behind", "not_told"]
    assert situations(cli.json("why", second.id)) == ["empty", "no_place"]
    text = cli.table("why", second.id)
    assert f"{second.id} is online" in text
    assert "rollout 1 of tiny@1 is in wave 1 of 2" in text.replace("\n    ", " ").lower()
    assert "to do:" in text

    controller.parts.services.rollouts.pause(1)
    assert situations(cli.json("why", second.id)) == ["rollout_paused", "empty"]
    controller.parts.services.rollouts.resume(1)
    commit(controller, first, version)
    runs = cli.json("why", first.id)
    assert situations(runs) == ["runs"]
    assert runs["slots"][0]["should_run"] == runs["slots"][0]["runs"] == "tiny@1"
    assert runs["slots"][0]["explanations"][0]["since"] == controller.clock.wall()

    controller.parts.services.rollouts.abort(1, "lunch")
    aborted = cli.json("why", second.id)
    assert situations(aborted) == ["empty", "rollout_aborted"]
    assert aborted["slots"][0]["explanations"][1]["cause"] == "lunch"


def test_what_is_unlike_other_devices_is_of_that_device(
    controller: Any, fleet: list[Any], cli: Any, make_package: Any
) -> None:
    version = controller.keep(make_package("1"))
    roll_out(controller, "1", waves=("100%",))
    for device in fleet:
        commit(controller, device, version)
    with controller.parts.services.database.writing() as session:
        for scope, key in ((Scope.DEVICE, "d1"), (Scope.LABEL, "site=other")):
            session.add(
                DriftAlarm(
                    slot="main",
                    manifest_digest=version.manifest_digest,
                    scope=scope.value,
                    key=key,
                    cause=Cause.SENSOR_FAULT.value,
                    sensor="gyroscope",
                    score=0.5,
                    threshold=0.2,
                    raised_at=1.0,
                    cleared_at=None,
                    evidence={},
                )
            )
    assert situations(cli.json("why", "d0")) == ["runs"]
    assert situations(cli.json("why", "d1")) == ["drift", "runs"]


def test_a_device_that_went_offline_says_since_when(
    controller: Any, fleet: list[Any], cli: Any
) -> None:
    seen_at = controller.clock.wall()
    controller.clock.advance(100)
    controller.parts.services.listener.disconnected("refused")
    with controller.parts.services.database.writing() as session:
        devices.set_offline(session, ["d0"])
        events.add(session, 1.0, "device.disconnected", "d0", {"why": "silent for 99 s"})
    document = cli.json("why", "d0")
    assert situations(document) == ["broker_away", "no_slot", "offline"]
    assert document["explanations"][2]["since"] == seen_at
    assert document["explanations"][2]["cause"] == "silent for 99 s"


def test_a_device_that_nobody_knows(controller: Any, cli: Any, telemetry: Any) -> None:
    controller.parts.services.listener.connected()
    text = cli.run("why", "d9", code=ExitCode.NOT_FOUND).stdout
    assert "No device d9 has ever said hello" in text
    controller.takes(telemetry("d9", "a" * 16, 1, 2))
    assert "sends telemetry" in cli.run("why", "d9", code=ExitCode.NOT_FOUND).stdout


def test_a_challenger_is_shown(
    controller: Any, fleet: list[Any], cli: Any, make_package: Any
) -> None:
    version, other = (controller.keep(make_package(number)) for number in ("1", "2"))
    said = ChallengerReported(version=other, state=ChallengeState.REFUSED, cause="memory")
    fleet[0].slots = (
        SlotReported(
            slot="main",
            state=SlotState.COMMITTED,
            champion=version,
            runner_alive=True,
            challenger=said,
        ),
    )
    controller.takes(fleet[0].reported())
    assert "tiny@2 refused" in cli.table("device", "show", "d0")
    assert cli.json("device", "show", "d0")["slots"][0]["challenger"]["cause"] == "memory"
    assert situations(cli.json("why", "d0")) == ["challenger_refused", "runs_unassigned"]


def test_quarantine_a_queue_and_an_approval(
    controller: Any, fleet: list[Any], cli: Any, make_package: Any
) -> None:
    version = controller.keep(make_package("1"))
    controller.keep(make_package("2"))
    terms = RolloutTerms(soak_s=0, probation={"compare": False}, schedule=Schedule(approve=(2,)))
    roll_out(controller, "1", terms=terms)
    roll_out(controller, "2", if_busy=IfBusy.QUEUE)
    first = next(d for d in fleet if controller.broker.desired(d.id))
    second, third = (d for d in fleet if d is not first)
    commit(controller, first, version)
    told = cli.json("why", second.id)
    assert situations(told) == ["rollout_unapproved", "empty", "rollout_queued"]
    controller.parts.services.rollouts.hold(1, third.id, "on loan")
    assert situations(cli.json("why", third.id)) == ["held_out", "empty", "rollout_queued"]
    with controller.parts.services.database.writing() as session:
        devices.require(session, second.id).quarantine = "smells of smoke"
    (held,) = cli.json("why", second.id)["explanations"]
    assert (held["situation"], held["cause"]) == ("held", "smells of smoke")
