"""Rollouts that wait: for others, for people, for times; and devices that are kept out."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from edgeloop_controller.api.app import create_app
from edgeloop_controller.core.rollout_queue import Claim, startable

TERMS = {"soak_s": 0, "min_compared": 0, "probation": {"min_s": 0.1, "compare": False}}


@pytest.fixture
def http(controller: Any) -> Iterator[TestClient]:
    with TestClient(create_app(controller.parts.services), base_url="http://localhost") as client:
        yield client


class Bed:
    """A controller, its API, and devices that obey."""

    def __init__(self, controller: Any, http: TestClient, make_device: Callable[..., Any]) -> None:
        self.controller, self.http, self._make = controller, http, make_device
        self.devices: dict[str, Any] = {}

    def join(self, *ids: str, **labels: str) -> None:
        for device_id in ids:
            device = self.devices[device_id] = self._make(device_id, labels=labels)
            self.controller.takes(device.hello())

    def turn(self, after_s: float = 1.0) -> None:
        self.controller.clock.advance(after_s)
        self.controller.parts.reconciler.tick()
        for device in self.devices.values():
            told = self.controller.broker.desired(device.id)
            if told and told[-1].revision > device.revision:
                self.controller.takes(device.obeys(told[-1], ""))

    def start(self, version: str = "1", code: int = 201, **changes: Any) -> Any:
        schedule = changes.pop("schedule", {})
        body = {
            "name": "tiny",
            "version": version,
            "waves": ["100%"],
            "terms": {**TERMS, "schedule": schedule},
            **changes,
        }
        answer = self.http.post("/v1/rollouts", json=body)
        assert answer.status_code == code, answer.text
        return answer.json()

    def plan(self, version: str = "1", **changes: Any) -> Any:
        body = {"name": "tiny", "version": version, "terms": TERMS, **changes}
        answer = self.http.post("/v1/rollouts/plan", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, code: int = 200) -> Any:
        answer = self.http.post(f"/v1{path}", json=body)
        assert answer.status_code == code, answer.text
        return answer.json()

    def show(self, rollout: int) -> Any:
        return self.http.get(f"/v1/rollouts/{rollout}").json()

    def run(self) -> dict[str, str | None]:
        return {
            name: device.slots[0].champion.version
            if device.slots and device.slots[0].champion
            else None
            for name, device in self.devices.items()
        }


@pytest.fixture
def bed(controller: Any, http: TestClient, make_device: Callable[..., Any]) -> Bed:
    found = Bed(controller, http, make_device)
    for version in ("1", "2", "3"):
        controller.publish(version, seed=int(version))
    return found


def install(bed: Bed, version: str) -> int:
    rollout = int(bed.start(version)["id"])
    for _ in range(3):
        bed.turn()
    assert set(bed.run().values()) == {version}
    return rollout


def test_a_rollout_waits_for_one_on_the_same_devices(bed: Bed) -> None:
    bed.join("a", "b")
    first = bed.start("1", schedule={"pace_per_min": 1})["id"]
    bed.turn()
    refused = bed.start("2", code=409)["error"]
    assert refused["message"] == (
        f"rollout {first} is not over on slot main, with 2 of the same devices (a, b)"
    )
    assert "--queue" in refused["hint"]
    queued = bed.start("2", selector="device=b", if_busy="queue")
    assert (queued["status"], queued["ended_at"]) == ("queued", None)
    other = bed.start("3", selector="device=b", if_busy="queue")
    bed.turn()
    assert bed.run() == {"a": None, "b": "1"} or bed.run() == {"a": "1", "b": None}
    for _ in range(3):
        bed.turn(61)
    assert bed.show(first)["status"] == "done"
    for _ in range(3):
        bed.turn()
    assert bed.show(queued["id"])["status"] == "done"
    assert bed.run()["a"] == "1"
    assert bed.run()["b"] in ("2", "3")
    for _ in range(3):
        bed.turn()
    assert bed.show(other["id"])["status"] == "done"
    assert bed.run() == {"a": "1", "b": "3"}


def test_a_hotfix_preempts(bed: Bed) -> None:
    bed.join("a", "b")
    first = bed.start("1", waves=["1", "100%"], schedule={"approve": [2]})["id"]
    for _ in range(2):
        bed.turn()
    assert sorted(version or "" for version in bed.run().values()) == ["", "1"]
    bed.start("2", if_busy="preempt")
    ended = bed.show(first)
    assert (ended["status"], ended["verdict"]) == ("aborted", "preempted by tiny@2")
    for _ in range(3):
        bed.turn()
    assert bed.run() == {"a": "2", "b": "2"}


def test_approval_is_kept_with_who_gave_it(bed: Bed) -> None:
    bed.join("a", "b")
    rollout = bed.start("1", waves=["1", "100%"], schedule={"approve": [2]})["id"]
    for _ in range(4):
        bed.turn()
    assert bed.show(rollout)["verdict"] == "wave 1 of 2 waits for approval of wave 2"
    assert sum(version is not None for version in bed.run().values()) == 1
    wrong = bed.post(f"/rollouts/{rollout}/approve", {"wave": 1, "by": "ada"}, code=422)
    assert wrong["error"]["message"] == "wave 1 waits for no approval"
    approved = bed.post(f"/rollouts/{rollout}/approve", {"by": "ada"})
    assert [(one["wave"], one["by"]) for one in approved["approvals"]] == [(2, "ada")]
    again = bed.post(f"/rollouts/{rollout}/approve", {"by": "ada"}, code=409)
    assert again["error"]["message"] == f"rollout {rollout} waits for no approval"
    for _ in range(3):
        bed.turn()
    assert bed.run() == {"a": "1", "b": "1"}


def test_a_wave_that_is_not_there_cannot_be_approved(bed: Bed) -> None:
    bed.join("a")
    refused = bed.start("1", code=422, schedule={"approve": [2]})
    assert refused["error"]["message"] == "wave 2 is to be approved; there are 1"


def test_quarantine(bed: Bed) -> None:
    bed.join("a", "b")
    answer = bed.http.put("/v1/devices/a/quarantine", json={"reason": "smells of smoke"})
    assert answer.json()["quarantine"] == "smells of smoke"
    rollout = bed.start("1")["id"]
    for _ in range(3):
        bed.turn()
    assert bed.run() == {"a": None, "b": "1"}
    assert bed.show(rollout)["verdict"] == "1 of 1 matching devices run tiny@1"
    assert bed.http.put("/v1/devices/a/quarantine", json={"reason": ""}).json()["quarantine"] == ""
    bed.turn()
    assert bed.run() == {"a": "1", "b": "1"}
    kinds = [e["kind"] for e in bed.http.get("/v1/events?kind=device.").json()["items"]]
    assert kinds[2:] == ["device.quarantined", "device.released"]


def test_a_device_held_out_goes_back_and_comes_again(bed: Bed) -> None:
    bed.join("a", "b")
    install(bed, "1")
    rollout = bed.start("2")["id"]
    for _ in range(3):
        bed.turn()
    shown = bed.post(f"/rollouts/{rollout}/devices/a/hold", {"reason": "the line runs"})
    assert shown["members"]["held"] == 1
    bed.turn()
    assert bed.run() == {"a": "1", "b": "2"}
    bed.turn()
    assert bed.run()["a"] == "1"
    bed.post(f"/rollouts/{rollout}/devices/a/release")
    bed.turn()
    assert bed.run() == {"a": "2", "b": "2"}
    bed.post(f"/rollouts/{rollout}/devices/nobody/hold", {"reason": "x"}, code=404)


def test_rolling_a_finished_rollout_back(bed: Bed) -> None:
    bed.join("a", "b")
    install(bed, "1")
    second = install(bed, "2")
    third = install(bed, "3")
    shown = bed.post(f"/rollouts/{third}/rollback", {"reason": "smells"})
    assert (shown["status"], shown["verdict"]) == ("halted", "smells")
    bed.turn()
    assert bed.run() == {"a": "2", "b": "2"}
    back = {"reason": "further", "to": "tiny@1"}
    bed.post(f"/rollouts/{second}/rollback", back)
    bed.turn()
    assert bed.run() == {"a": "1", "b": "1"}  # to which the third had given them back
    same = bed.post(f"/rollouts/{third}/rollback", {"reason": "x", "to": "tiny@3"}, code=409)
    assert same["error"]["message"] == "that is the version that the rollout brought"
    bed.post(f"/rollouts/{third}/rollback", {"reason": "x", "to": "tiny"}, code=422)


def test_rolling_back_to_a_version_that_is_named(bed: Bed) -> None:
    bed.join("a", "b")
    install(bed, "1")
    install(bed, "2")
    third = install(bed, "3")
    bed.post(f"/rollouts/{third}/rollback", {"reason": "smells", "to": "tiny@1"})
    bed.turn()
    assert bed.run() == {"a": "1", "b": "1"}


def test_selectors_ask_what_devices_run_and_follow_it(bed: Bed) -> None:
    bed.join("a", "b", site="north")
    install(bed, "1")
    bed.join("c")
    rollout = bed.start("2", selector="model.tiny<2, arch=x86_64", waves=["1", "100%"])["id"]
    for _ in range(5):
        bed.turn()
    shown = bed.show(rollout)
    assert shown["status"] == "done"
    assert {name for name, version in bed.run().items() if version == "2"} >= {"a", "b"}


def test_a_label_cannot_hide_what_is_built_in(bed: Bed) -> None:
    bed.join("a")
    for name in ("arch", "model.x", "device", "slot.main"):
        answer = bed.http.patch("/v1/devices/a/labels", json={"labels": {name: "x"}})
        assert answer.status_code == 422
        assert "is built in" in answer.json()["error"]["message"]
    answer = bed.http.patch("/v1/devices/a/labels", json={"labels": {"timezone": "Mars/Olympus"}})
    assert "no timezone" in answer.json()["error"]["message"]


def test_maintenance_hours_are_those_of_the_zone(bed: Bed) -> None:
    bed.controller.clock.jump_wall(1_795_003_200.0)  # 2026-11-18 12:00 UTC, 21:00 in Tokyo
    bed.join("utc")
    bed.join("tokyo", timezone="Asia/Tokyo")
    rollout = bed.start("1", schedule={"maintenance": ["21:00-22:00"]})["id"]
    for _ in range(3):
        bed.turn()
    assert bed.run() == {"utc": None, "tokyo": "1"}
    assert bed.show(rollout)["verdict"] == "wave 1 of 1 waits for maintenance hours"


def test_a_plan_counts_devices_bytes_and_time(bed: Bed) -> None:
    bed.join("a", "b", "c")
    install(bed, "1")
    bed.join("new")
    bed.http.put("/v1/devices/c/quarantine", json={"reason": "smoke"})
    before = bed.http.get("/v1/rollouts").json()
    planned = bed.plan("2", waves=["1", "100%"], install_s=30)
    assert bed.http.get("/v1/rollouts").json() == before
    assert (planned["matching"], [len(w["devices"]) for w in planned["waves"]]) == (4, [1, 2])
    assert planned["cannot"] == [{"cause": "in quarantine: smoke", "devices": ["c"]}]
    version = bed.http.get("/v1/models/tiny/versions/2").json()
    assert planned["bytes"] > 3 * version["artifact_size_bytes"]
    assert planned["bytes"] == sum(wave["bytes"] for wave in planned["waves"])
    assert planned["ends_at"] == pytest.approx(bed.controller.clock.wall() + 60)
    assert bed.plan("1", selector="device=a")["bytes"] == 0
    started = bed.start("2", waves=["1", "100%"])
    bed.turn()
    (canary,) = [m["device_id"] for m in bed.show(started["id"])["devices"] if m["wave"] == 1]
    assert [canary] == planned["waves"][0]["devices"]


def test_a_plan_names_what_is_in_the_way(bed: Bed) -> None:
    bed.join("a", "b")
    first = bed.start("1", schedule={"approve": [1]})["id"]
    planned = bed.plan("2")
    assert planned["overlaps"] == [first]
    bed.post(f"/rollouts/{first}/approve", {"by": "ada"})
    bed.turn()
    held = bed.plan("2")
    assert held["cannot"] == [{"cause": f"held by rollout {first}", "devices": ["a", "b"]}]
    assert held["waits"] == "wave 1 of 4 waits for a device that is online and free"
    assert len(bed.plan("2", if_busy="preempt")["waves"]) == 2


def test_who_was_queued_first_starts_first() -> None:
    def claim(rollout: int, devices: str, slot: str = "main") -> Claim:
        return Claim(rollout, slot, devices, frozenset(devices))

    active = [claim(1, "ab")]
    queued = [
        claim(2, "bc"),
        claim(3, "cd"),
        claim(4, "ef"),
        claim(5, "ab", "other"),
        claim(6, "f"),
    ]
    assert startable(queued, active) == [4, 5]
    assert startable(queued, []) == [2, 4, 5]
    nobody = [Claim(7, "main", "x", frozenset()), Claim(8, "main", "x", frozenset())]
    assert startable(nobody, []) == [7]
