"""What the files want and what there is: what has to be done, purely.

Invariants: nothing is aborted or started a second time unless it is asked for; what needs a person
is a change without a call; once the calls are done, the plan of the same files has none.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from edgeloop_controller.control.files import ControlFile, DeviceFile, RolloutFile
from edgeloop_controller.core.retraining import PolicyTerms
from edgeloop_controller.core.rollout_types import RolloutTerms, with_first_approval

UNFINISHED: Final = frozenset({"queued", "running", "paused"})


@dataclass(frozen=True)
class DeviceState:
    labels_set: Mapping[str, str]
    quarantine: str


@dataclass(frozen=True)
class RolloutState:
    id: int
    version: str
    selector: str
    waves: tuple[str, ...]
    slot: str
    status: str
    terms: RolloutTerms

    def is_of(self, file: RolloutFile) -> bool:
        return (self.version, self.waves) == (file.version, file.waves) and self.terms in (
            file.terms,
            with_first_approval(file.terms),
        )


@dataclass(frozen=True)
class PolicyState:
    terms: PolicyTerms
    origin: str
    """`api`, or `file`: one of the controller's own."""


@dataclass(frozen=True)
class State:
    """`rollouts`: the newest of each slot and selector."""

    devices: Mapping[str, DeviceState] = field(default_factory=dict)
    rollouts: Sequence[RolloutState] = ()
    policies: Mapping[str, PolicyState] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """`call` is None where a person has to decide first; `hint` says what."""

    sentence: str
    call: Call | None = None
    hint: str = ""


def plan(
    files: ControlFile, state: State, prune: bool = False, restart: Collection[str] = ()
) -> list[Change]:
    """`prune`: take away labels, quarantines and policies that no file names. `restart`: rollouts
    that may start again although one of the same content was halted or aborted."""
    wanted = dict(files.devices)
    if prune:
        wanted |= {name: DeviceFile() for name in state.devices if name not in wanted}
    changes = [
        change
        for name, device in sorted(wanted.items())
        for change in _device(name, device, state.devices.get(name), prune)
    ]
    newest = {(one.slot, one.selector): one for one in state.rollouts}
    for name, rollout in sorted(files.rollouts.items()):
        there = newest.get((rollout.slot, rollout.selector))
        change = _rollout(name, rollout, there, name in restart)
        changes += [change] if change else []
    changes += _policies(files, state, prune)
    return changes


def _policies(files: ControlFile, state: State, prune: bool) -> Iterator[Change]:
    for name, terms in sorted(files.policies.items()):
        there = state.policies.get(name)
        if there is not None and there.terms == terms:
            continue
        if there is not None and there.origin == "file":
            yield Change(
                f"policy {name} differs from the controller's own file of that name",
                hint="change that file on the controller, or remove one of the two",
            )
            continue
        path = f"/retraining/policies/{quote(name, safe='')}"
        yield Change(
            f"policy {name}: {'give' if there is None else 'change'}",
            Call("PUT", path, terms.model_dump(mode="json")),
        )
    for name, one in sorted(state.policies.items()):
        if prune and one.origin == "api" and name not in files.policies:
            path = f"/retraining/policies/{quote(name, safe='')}"
            yield Change(f"policy {name}: take away", Call("DELETE", path, {}))


def _device(
    name: str, file: DeviceFile, state: DeviceState | None, prune: bool
) -> Iterator[Change]:
    if state is None:
        yield Change(f"device {name} is not known", hint="apply again once it has said hello")
        return
    labels: dict[str, str | None] = {
        key: value for key, value in file.labels.items() if state.labels_set.get(key) != value
    }
    if prune:
        labels |= {key: None for key in state.labels_set if key not in file.labels}
    path = f"/devices/{quote(name, safe='')}"
    if labels:
        said = ", ".join(f"{k}-" if v is None else f"{k}={v}" for k, v in sorted(labels.items()))
        yield Change(
            f"device {name}: label {said}", Call("PATCH", f"{path}/labels", {"labels": labels})
        )
    quarantine = "" if file.quarantine is None and prune else file.quarantine
    if quarantine is not None and quarantine.strip() != state.quarantine:
        said = f"quarantine: {quarantine}" if quarantine.strip() else "release from quarantine"
        yield Change(
            f"device {name}: {said}", Call("PUT", f"{path}/quarantine", {"reason": quarantine})
        )


def _rollout(
    name: str, file: RolloutFile, there: RolloutState | None, restart: bool
) -> Change | None:
    if there is not None and there.is_of(file):
        if there.status in UNFINISHED or there.status == "done":
            return None
        if not restart:
            return Change(
                f"rollout {name} is {there.status} (rollout {there.id}), and not started again",
                hint=f"find out why, then `--restart {name}` or change the file",
            )
    elif there is not None and there.status in UNFINISHED and file.if_busy == "refuse":
        return Change(
            f"rollout {name} differs from rollout {there.id} ({there.version}, {there.status})",
            hint=f"wait, `edgeloop rollout abort {there.id}` or `rollback`, or set if_busy",
        )
    return Change(
        f"rollout {name}: start {file.version} to {file.selector}, waves {','.join(file.waves)}"
        + (f" ({file.if_busy} if busy)" if file.if_busy != "refuse" else ""),
        Call("POST", "/rollouts", _body(file)),
    )


def _body(file: RolloutFile) -> dict[str, Any]:
    model, _, version = file.version.partition("@")
    body = file.model_dump(mode="json", exclude={"version", "fleet"})
    return {**body, "name": model, "version": version}
