"""The shadow phase of a benchmarked rollout: who has the challenger, and what it tells.

Invariants: telemetry comes once a window, and what was told stays told; who is rid of it tells no
more; the phase's random draws come only where a rollout has one.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from edgeloop_controller.core.rollout import DeviceView, ShadowOff, ShadowOn, ShadowSeen, Step
from edgeloop_protocol.lifecycle import ChallengeState
from edgeloop_protocol.messages import ChallengerReported, VersionRef
from edgeloop_simulators.bench.rollout_fleet import AARCH64, SimulatedFleet

WINDOW_S: Final = 60.0
EARLY_S: Final = 1e-6
"""A time that was computed may fall so much short of the one that it stands for."""
REFUSED_AFTER_S: Final = 15.0
"""A challenger that crashes after a few seconds has had its tries by then."""


class Shadowing:
    def __init__(
        self, fleet: SimulatedFleet, rows: Mapping[str, int], old: VersionRef, max_ratio: float
    ) -> None:
        self._fleet, self._rows, self._old, self._max_ratio = fleet, rows, old, max_ratio
        self._told_until: dict[str, float] = {}
        """Device that has it → until when its windows are told of."""
        self._sums: dict[str, list[int]] = {}

    def take(self, result: Step, now: float) -> None:
        for effect in result.effects:
            if isinstance(effect, ShadowOn):
                install_s = float(self._fleet.install_s[self._rows[effect.device_id]])
                self._told_until[effect.device_id] = now + install_s
            elif isinstance(effect, ShadowOff):
                self._told_until.pop(effect.device_id, None)

    def next_at(self) -> list[float]:
        """When there is news of it."""
        if not self._told_until:
            return []
        return [min(self._told_until.values()) + WINDOW_S]

    def seen(self, now: float, crashes: bool) -> list[ShadowSeen]:
        """What all have told by now; where it crashes on one architecture nothing is told there."""
        for name, told_until in self._told_until.items():
            windows = int((now - told_until + EARLY_S) // WINDOW_S)
            row = self._rows[name]
            if windows > 0 and not (crashes and self._fleet.architecture[row] == AARCH64):
                self._tell(name, row, told_until, windows)
            if windows > 0:
                self._told_until[name] = told_until + windows * WINDOW_S
        return [ShadowSeen(name, self._old, *sums) for name, sums in self._sums.items()]

    def refused(
        self,
        views: Mapping[str, DeviceView],
        target: VersionRef,
        now: float,
        change: Callable[[str, ChallengerReported], None],
    ) -> None:
        """Where it crashes: devices of that architecture refuse it."""
        for name, told_until in self._told_until.items():
            is_due = now >= told_until + REFUSED_AFTER_S
            is_there = self._fleet.architecture[self._rows[name]] == AARCH64
            if is_due and is_there and views[name].slots["main"].challenger is None:
                said = ChallengerReported(
                    version=target, state=ChallengeState.REFUSED, cause="runner crashed"
                )
                change(name, said)

    def _tell(self, name: str, row: int, since: float, windows: int) -> None:
        until = since + windows * WINDOW_S
        examples, differ, failed = self._fleet.shadowed(
            np.array([row]), np.array([since]), np.array([until])
        )
        ratios = self._fleet.shadow_ratios(windows)
        answered = int(examples[0] - failed[0])
        told = [
            answered,
            min(int(differ[0]), answered),
            int(failed[0]),
            windows,
            int((ratios > self._max_ratio).sum()),
        ]
        sums = self._sums.setdefault(name, [0] * len(told))
        self._sums[name] = [before + more for before, more in zip(sums, told, strict=True)]
