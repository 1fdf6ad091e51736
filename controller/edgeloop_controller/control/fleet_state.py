"""Reads the state that a plan is made for, and makes a plan's calls. Raises ApiError."""

from collections.abc import Collection

from edgeloop.client import Client, quoted
from edgeloop_controller.control.plan import (
    Call,
    DeviceState,
    PolicyState,
    RolloutState,
    State,
)
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms

ROLLOUTS_READ_MAX = 1000
"""The newest: the API gives no more at once. Older ones count as not there."""


def read_state(client: Client, only: Collection[str] | None = None) -> State:
    """`only`: the devices to ask about, each by a request of its own; None: all."""
    devices = {}
    for item in client.get("/devices")["items"]:
        if only is not None and item["id"] not in only:
            continue
        detail = client.get(f"/devices/{quoted(item['id'])}")
        devices[item["id"]] = DeviceState(detail["labels_set"], detail["quarantine"])
    newest: dict[tuple[str, str], int] = {}
    for item in client.get("/rollouts", limit=ROLLOUTS_READ_MAX)["items"]:
        newest.setdefault((item["slot"], item["selector"]), item["id"])
    rollouts = [_rollout(client, rollout_id) for rollout_id in newest.values()]
    return State(devices, rollouts, _policies(client))


def make_call(client: Client, call: Call) -> None:
    if call.method == "DELETE":
        client.delete(call.path)
        return
    {"POST": client.post, "PUT": client.put, "PATCH": client.patch}[call.method](
        call.path, dict(call.body)
    )


def _policies(client: Client) -> dict[str, PolicyState]:
    """Those that can be used, and those of the API that cannot count as not there: to give one
    again says why."""
    return {
        item["name"]: PolicyState(PolicyTerms.model_validate(item["terms"]), item["origin"])
        for item in client.get("/retraining/policies")["items"]
    }


def _rollout(client: Client, rollout_id: int) -> RolloutState:
    found = client.get(f"/rollouts/{rollout_id}")
    return RolloutState(
        id=found["id"],
        version=f"{found['name']}@{found['version']}",
        selector=found["selector"],
        waves=tuple(found["waves"]),
        slot=found["slot"],
        status=found["status"],
        terms=RolloutTerms.model_validate(found["terms"]),
    )
