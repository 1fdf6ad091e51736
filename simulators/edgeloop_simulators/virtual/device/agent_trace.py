"""What a life of the agent shows to the world: slots that change, runners, windows, fetches.

Invariant: says what is new, once; nothing of it comes back to the agent.
"""

from collections.abc import Callable
from typing import Any

from edgeloop_agent.core.events import FetchFailed
from edgeloop_agent.core.snapshot import Challenge, DeviceSnapshot
from edgeloop_agent.ports import Fetch
from edgeloop_agent.shell.fetch import FetchEvent
from edgeloop_simulators.virtual.device.machine import Machine
from edgeloop_simulators.virtual.device.runner import VirtualRunner
from edgeloop_simulators.virtual.device.window import Window


class AgentTrace:
    """The RunnerWatcher of a device; `started` hears of each runner before the world does."""

    __slots__ = ("_machine", "_said", "_started")

    def __init__(self, machine: Machine, started: Callable[[VirtualRunner], None]) -> None:
        self._machine = machine
        self._started = started
        self._said: DeviceSnapshot | None = None

    def slots(self, snapshot: DeviceSnapshot) -> None:
        """Those that are not as they were last said to be."""
        if snapshot is self._said:
            return
        before = {slot.slot: slot for slot in self._said.slots} if self._said else {}
        self._said = snapshot
        for slot in snapshot.slots:
            if slot is not before.get(slot.slot):
                refused = slot.refused
                self._machine.see(
                    "slot.state",
                    slot=slot.slot,
                    state=slot.state.value,
                    champion=_name(slot.champion),
                    candidate=_name(slot.candidate.offer if slot.candidate else None),
                    refused=f"{refused.version}: {refused.cause}" if refused else None,
                    revision=snapshot.revision,
                    **_challenge(slot.challenge),
                )

    def runner_started(self, runner: VirtualRunner) -> None:
        self._started(runner)
        self._machine.see("runner.started", runner=runner.number, version=str(runner.version))

    def runner_serves(self, runner: VirtualRunner) -> None:
        self._machine.see("runner.serving", runner=runner.number, version=str(runner.version))

    def runner_exited(self, runner: VirtualRunner, why: str) -> None:
        version = str(runner.version)
        self._machine.see("runner.exited", runner=runner.number, version=version, why=why)

    def window_closed(self, runner: VirtualRunner, window: Window) -> None:
        machine = self._machine
        machine.see(
            "window",
            version=str(runner.version),
            count=window.count,
            right=window.right,
            errors=window.errors,
            nonfinite=window.nonfinite,
            disagreements=window.disagreements,
            phase=machine.spec.surroundings.phase(machine.world.loop.now_s),
        )

    def fetch_ended(self, fetch: Fetch, event: FetchEvent) -> None:
        failed = event.detail if isinstance(event, FetchFailed) else ""
        self._machine.see(
            "fetch.ended",
            what=type(fetch).__name__.removeprefix("Fetch").lower(),
            version=f"{fetch.offer.name}@{fetch.offer.version}",
            outcome=failed or "ok",
        )


def _challenge(challenge: Challenge | None) -> dict[str, str]:
    """Nothing, where nothing challenges."""
    if challenge is None:
        return {}
    refused = f": {challenge.refused.cause}" if challenge.refused else ""
    name = _name(challenge.challenger.offer)
    return {"challenger": f"{name} {challenge.state.value}{refused}"}


def _name(version: Any) -> str | None:
    return None if version is None else f"{version.name}@{version.version}"
