"""A rollout that begins in shadow, through the services: a database, a controller that dies."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from edgeloop_controller import composition
from edgeloop_controller.api.app import create_app
from edgeloop_controller.artifacts import LocalArtifactStore
from edgeloop_controller.core.rollout import ProbationTerms, RolloutTerms
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_controller.errors import ConflictError, RefusedInputError
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.services.rollouts import IfBusy, RolloutRequest
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import Challenger, ChallengerAssignment
from edgeloop_controller.training.executor import LocalExecutor
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import (
    ChallengerReported,
    Desired,
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

SHADOW = ShadowTerms(devices=2, min_compared=20, soak_s=0, deadline_s=1000)
TERMS = RolloutTerms(
    soak_s=0,
    min_compared=0,
    probation=ProbationTerms(min_s=0.1, compare=False),
    shadow=SHADOW,
)


class World:
    """Devices that run tiny@1, a rollout of tiny@2; with `dies` the controller is another one at
    every tick."""

    def __init__(
        self, controller: Any, make_device: Callable[..., Any], make_package: Any, dies: bool
    ) -> None:
        self.controller, self.dies = controller, dies
        self.old: VersionRef = controller.keep(make_package("1"))
        self.new: VersionRef = controller.keep(make_package("2"))
        running = SlotReported(slot="main", state=SlotState.COMMITTED, champion=self.old)
        self.devices = {f"d{n}": make_device(f"d{n}", slots=(running,)) for n in range(4)}
        self.sequences = dict.fromkeys(self.devices, 1)
        self.refuses = ""
        controller.takes(*(device.hello() for device in self.devices.values()))

    @property
    def services(self) -> Any:
        return self.controller.parts.services

    def start(self, terms: RolloutTerms = TERMS, **changes: Any) -> int:
        request = RolloutRequest("tiny", "2", "all", ("1", "100%"), terms)
        return int(self.services.rollouts.start(replace(request, **changes)))

    def tick(self) -> None:
        """And every device that was told something does it."""
        if self.dies:
            config = self.services.config
            self.controller.parts = composition.build(
                config,
                self.database,
                self.controller.broker,
                self.controller.clock,
                LocalArtifactStore(config.artifacts_dir),
                LocalExecutor(),
            )
        self.controller.parts.reconciler.tick()
        for device in self.devices.values():
            told = self.controller.broker.desired(device.id)
            if told and told[-1].revision > device.revision:
                self.obey(device, told[-1])

    @property
    def database(self) -> Database:
        database: Database = self.services.database
        return database

    def obey(self, device: Any, desired: Desired) -> None:
        device.revision = desired.revision
        (before,), reported, champion = device.slots, None, device.slots[0].champion
        for slot in desired.slots:
            champion = slot.offer.ref if slot.offer is not None else champion
            if slot.challenger is not None:
                state = ChallengeState.REFUSED if self.refuses else ChallengeState.IN_SHADOW
                version = slot.challenger.offer.ref
                reported = ChallengerReported(version=version, state=state, cause=self.refuses)
        device.slots = (before.model_copy(update={"champion": champion, "challenger": reported}),)
        self.controller.takes(device.reported())

    def shadowing(self) -> list[str]:
        """Who reports that it has a challenger."""
        return [name for name, d in self.devices.items() if d.slots[0].challenger is not None]

    def runs(self) -> list[str]:
        return [device.slots[0].champion.version for device in self.devices.values()]

    def show(self, *names: str, disagreements: int = 0, latency_us: float = 10.0) -> None:
        """One window of the champion and one of the challenger, of the same minute."""
        for name in names or self.shadowing():
            device, first = self.devices[name], self.sequences[name]
            self.sequences[name] += 2
            champion = window(self.old, first, 10.0)
            challenger = ShadowSummary(
                champion=self.old,
                window=window(self.new, first, latency_us),
                disagreements=disagreements,
            )
            bodies = (challenger, champion)
            records = tuple(Record(sequence=first + n, body=body) for n, body in enumerate(bodies))
            batch = TelemetryBatch(epoch=device.epoch, base=1, records=records)
            self.controller.takes(Inbound(up_topic(name, Up.TELEMETRY), encode(batch)))

    def assigned(self) -> list[str]:
        with self.database.reading() as session:
            return sorted(session.scalars(select(ChallengerAssignment.device_id)))

    def api(self, path: str, **body: Any) -> dict[str, Any]:
        client = TestClient(create_app(self.services), base_url="http://localhost")
        answer = client.post(f"/v1{path}", json=body) if body else client.get(f"/v1{path}")
        document: dict[str, Any] = answer.json()
        return document


def window(version: VersionRef, minute: int, latency_us: float) -> WindowSummary:
    return WindowSummary(
        slot="main",
        version=version,
        started_at=minute * 60.0,
        ended_at=minute * 60.0 + 60,
        count=20,
        latency_p50_us=latency_us / 2,
        latency_p95_us=latency_us,
    )


@pytest.fixture(params=[False, True], ids=["lives", "dies"])
def world(
    request: Any, controller: Any, make_device: Callable[..., Any], make_package: Any
) -> World:
    return World(controller, make_device, make_package, request.param)


def test_a_good_version_shadows_and_then_reaches_all(world: World) -> None:
    rollout = world.start()
    world.tick()
    assert len(world.shadowing()) == 2
    assert world.assigned() == world.shadowing()
    assert world.runs() == ["1"] * 4
    first, other = world.shadowing()
    world.show(first)
    world.tick()
    assert len(world.shadowing()) == 2
    world.show(other)
    world.tick()
    assert world.shadowing() == []
    assert world.runs().count("2") == 1
    for _ in range(6):
        world.tick()
    shown = world.api(f"/rollouts/{rollout}")
    assert (shown["status"], world.runs()) == ("done", ["2"] * 4)
    assert shown["shadow"]["outcome"] == "held"
    assert shown["shadow"]["sentence"] == "its gates hold: compared 40 examples on 2 devices"
    assert {one["compared"] for one in shown["shadow"]["devices"]} == {20}
    waves = {verdict["gate"]: verdict["wave"] for verdict in shown["verdicts"]}
    assert (waves["shadow_disagreement"], waves["failures"]) == (0, 2)
    assert world.assigned() == []
    challenger = world.api(f"/challengers/{shown['shadow']['challenger']}")
    assert challenger["ended_at"] is not None
    assert challenger["rollout_id"] == rollout


@pytest.mark.parametrize(
    ("shows", "words"),
    [
        ({"disagreements": 20}, "tiny@2 disagrees with tiny@1 on "),
        ({"latency_us": 100.0}, "tiny@2 takes over 3 times as long as tiny@1 (p95) in "),
    ],
)
def test_a_bad_one_is_halted_with_nobody_exposed(
    world: World, shows: dict[str, Any], words: str
) -> None:
    rollout = world.start(TERMS.model_copy(update={"shadow": SHADOW.model_copy(update=LONG)}))
    world.tick()
    for _ in range(12):
        world.show(**shows)
        world.tick()
    shown = world.api(f"/rollouts/{rollout}")
    assert shown["status"] == "halted"
    assert shown["verdict"].startswith(f"halted in shadow: {words}")
    assert (shown["devices"], shown["shadow"]["outcome"]) == ([], "broken")
    assert (world.shadowing(), world.assigned(), world.runs()) == ([], [], ["1"] * 4)


LONG = {"soak_s": 500.0}


def test_one_that_crashes_there_is_halted(world: World) -> None:
    world.refuses = "runner crashed"
    rollout = world.start()
    world.tick()
    world.tick()
    shown = world.api(f"/rollouts/{rollout}")
    assert shown["verdict"] == (
        "halted in shadow: 2 of 2 devices refused tiny@2 (runner crashed); none may"
    )
    assert (world.shadowing(), world.runs()) == ([], ["1"] * 4)


def test_the_deadline_waits_for_a_person(world: World) -> None:
    rollout = world.start()
    world.tick()
    assert "error" in world.api(f"/rollouts/{rollout}/approve", by="ada"), "it waits for nobody"
    world.controller.clock.advance(1000)
    world.tick()
    shown = world.api(f"/rollouts/{rollout}")
    assert shown["shadow"]["overdue"]
    assert "waits for a person" in shown["shadow"]["sentence"]
    why = world.api("/devices/d0/why")["slots"][0]["explanations"]
    assert "rollout_in_shadow" in {one["situation"] for one in why}
    approved = world.api(f"/rollouts/{rollout}/approve", by="ada")
    assert [(one["wave"], one["by"]) for one in approved["approvals"]] == [(0, "ada")]
    world.tick()
    assert world.api(f"/rollouts/{rollout}")["shadow"]["outcome"] == "let_go_on"
    assert world.runs().count("2") == 1


@pytest.mark.parametrize("how", ["abort", "rollback", "preempt"])
def test_ended_by_hand_nobody_keeps_it(world: World, how: str) -> None:
    rollout = world.start()
    world.tick()
    if how == "preempt":
        world.start(RolloutTerms(), if_busy=IfBusy.PREEMPT)
    else:
        world.api(f"/rollouts/{rollout}/{how}", reason="enough")
    assert world.assigned() == []
    for _ in range(2):
        world.tick()
    assert world.shadowing() == []
    shadow = world.api(f"/rollouts/{rollout}")["shadow"]
    assert (shadow["outcome"], shadow["ended_at"] is None) == ("stopped", False)


def test_paused_and_held_out(world: World) -> None:
    rollout = world.start()
    world.tick()
    first, other = world.shadowing()
    world.api(f"/rollouts/{rollout}/devices/{first}/hold", reason="the line runs")
    world.services.rollouts.pause(rollout)
    world.tick()
    assert world.shadowing() == [other]
    world.services.rollouts.resume(rollout)
    world.tick()
    assert len(world.shadowing()) == 2
    assert first not in world.shadowing()


def test_a_queued_one_begins_when_its_turn_comes(world: World) -> None:
    ahead = world.start(TERMS.model_copy(update={"shadow": None}))
    queued = world.start(if_busy=IfBusy.QUEUE)
    world.services.rollouts.abort(ahead, "no")
    world.tick()
    assert len(world.shadowing()) == 2
    assert world.api(f"/rollouts/{queued}")["status"] == "running"


def test_challengers_of_people_and_of_rollouts_stay_apart(world: World) -> None:
    budget = ShadowBudget(cpu_fraction=0.5)
    mine = world.services.challengers.start(
        ChallengerRequest("tiny", "2", "device in (d0, d1)", "main", budget)
    )
    world.tick()
    rollout = world.start(TERMS.model_copy(update={"shadow": ShadowTerms(devices=3)}))
    world.tick()
    with world.database.reading() as session:
        rows = session.scalars(select(Challenger).where(Challenger.rollout_id == rollout))
        (own,) = [row.id for row in rows]
        rows = session.scalars(select(ChallengerAssignment))
        held = {row.device_id: row.challenger_id for row in rows}
    assert held == {"d0": mine, "d1": mine, "d2": own, "d3": own}
    with pytest.raises(ConflictError, match=f"is the shadow phase of rollout {rollout}"):
        world.services.challengers.stop(own)
    with pytest.raises(ConflictError, match=f"phase of rollout {rollout} has 1 of these devices"):
        world.services.challengers.start(
            ChallengerRequest("tiny", "1", "device=d3", "main", budget)
        )
    world.services.challengers.stop(mine)
    for _ in range(3):
        world.tick()
    assert len(world.shadowing()) == 3, "one that is free now is chosen"


def test_a_device_that_comes_to_match_a_challenger_has_it_after_the_phase(world: World) -> None:
    budget, late = ShadowBudget(), world.devices["d3"]
    world.devices["d0"].labels = {"site": "lab"}
    world.controller.takes(world.devices["d0"].hello())
    mine = world.services.challengers.start(
        ChallengerRequest("tiny", "1", "site=lab", "main", budget)
    )
    world.tick()
    rollout = world.start(TERMS.model_copy(update={"shadow": ShadowTerms(devices=4)}))
    world.tick()
    assert late.slots[0].challenger.version == world.new
    late.labels = {"site": "lab"}
    world.controller.takes(late.hello())
    world.tick()
    assert late.slots[0].challenger.version == world.new
    world.services.rollouts.abort(rollout, "enough")
    world.tick()
    world.tick()
    assert late.slots[0].challenger.version == world.old
    assert world.api(f"/challengers/{mine}")["devices"] == 2


def test_beside_nothing_it_is_refused(controller: Any, make_device: Any, make_package: Any) -> None:
    controller.keep(make_package("2"))
    request = RolloutRequest("tiny", "2", "all", ("100%",), TERMS)
    start = controller.parts.services.rollouts.start
    assert start(replace(request, selector="site=moon", allow_empty=True))
    controller.takes(make_device("new").hello())
    with pytest.raises(RefusedInputError, match="no matching device runs another version on slot"):
        start(request)
    planned = controller.parts.services.planning.plan(request)
    assert planned.plan.shadow is not None
    assert planned.plan.shadow.devices == ()
    assert [one.cause for one in planned.plan.shadow.cannot] == [
        "runs no version on slot main that it could run beside"
    ]
    assert "waits for a device that runs another version" in planned.plan.waits


def test_the_commands_tell_it(
    controller: Any, make_device: Any, make_package: Any, cli: Any
) -> None:
    world = World(controller, make_device, make_package, dies=False)
    shadow = ("--shadow", "3", "--shadow-examples", "20", "--shadow-soak", "90")
    said = " ".join(cli.table("rollout", "plan", "tiny@2", "--to", "all", *shadow).split())
    assert "First it is in shadow on 3 devices (" in said
    assert ", for 90 s at the least." in said
    assert "add --shadow DEVICES" in cli.refused(
        2, "rollout", "start", "tiny@2", "--to", "all", "--shadow-soak", "9"
    )
    started = cli.json("rollout", "start", "tiny@2", "--to", "all", *shadow, "--shadow-cpu", "0.2")
    assert started["terms"]["shadow"]["budget"]["cpu_fraction"] == 0.2
    world.tick()
    world.show()
    world.tick()
    number = str(started["id"])
    shown = cli.table("rollout", "show", number)
    assert "on 3 devices, before the first wave" in shown
    assert "the shadow phase soaks for 90 s" in shown
    challenger = str(cli.json("rollout", "show", number)["shadow"]["challenger"])
    assert f"all, by rollout {number}" in cli.table("challenger", "show", challenger)
    why = " ".join(cli.table("why", world.shadowing()[0]).split())
    assert f"rollout {number} begins with a shadow phase" in why
    assert "edgeloop rollout show" in why
    approved = cli.run("rollout", "approve", number, "--wave", "0", "--by", "ada").stdout
    assert approved == f"the shadow phase of rollout {number} approved\n"
    assert "the shadow phase by ada" in cli.table("rollout", "show", number)
    plain = cli.json("rollout", "plan", "tiny@2", "--to", "all")
    assert plain["shadow"] is None
