"""What was recorded of a virtual world, read back: figures, series and spans, ready to be judged
and drawn. Pure over the recorder, the world's values and its outcome.

Invariants: times are virtual seconds since the world's beginning; nothing is smoothed; a share is
over those that it names, and None where there are none of these.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from edgeloop_controller.core.selector import parse
from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.lifecycle import RESTING
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.run.recorder import Change, DeviceTrack, Recorder, Window
from edgeloop_simulators.virtual.scenario.build import Built, is_target
from edgeloop_simulators.virtual.spec.world import DeviceSpec, StartRollout

DAY_S: Final = 86_400.0
RUNNING_SHARE: Final = 0.95
ENDED: Final = frozenset({"done", "halted", "aborted"})
NO_VERSION: Final = Change(0.0, None, None, "idle")


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout from its start to its end, or to the world's. `points`: (at_s, the controller's
    row)."""

    id: int
    version: str
    selector: str
    waves: tuple[str, ...]
    matching: tuple[str, ...]
    points: tuple[tuple[float, dict[str, Any]], ...]
    exposed: tuple[tuple[str, float], ...]
    """Devices that ever ran the version since the rollout's start, and when first."""
    rolled_back: tuple[str, ...]
    """Devices that refused it by themselves."""

    @property
    def started_s(self) -> float:
        return self.points[0][0]

    @property
    def last(self) -> dict[str, Any]:
        return self.points[-1][1]

    @property
    def status(self) -> str:
        """`running`, `paused`, `halted`, `aborted` or `done`."""
        return str(self.last["status"])

    @property
    def verdict(self) -> str:
        return str(self.last["verdict"])

    @property
    def ended_s(self) -> float | None:
        return next((at for at, row in self.points if row["status"] in ENDED), None)

    @property
    def exposed_share(self) -> float:
        return len(self.exposed) / len(self.matching) if self.matching else 0.0


@dataclass(frozen=True)
class Alarm:
    raised_s: float
    cleared_s: float | None
    scope: str
    key: str
    cause: str
    sensor: str | None
    score: float
    threshold: float
    explanation: str


class Recording:
    """Everything that is known of one run."""

    def __init__(self, built: Built, recorder: Recorder, outcome: Outcome) -> None:
        recorder.close(outcome.virtual_s)
        self.built = built
        self.recorder = recorder
        self.outcome = outcome
        self.devices = {device.id: device for device in built.spec.devices}

    @property
    def ends_s(self) -> float:
        return self.outcome.virtual_s

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """Those of the scenario, then those that retraining made."""
        more = dict.fromkeys([*self.recorder.exposed, *(r.version for r in self.rollouts)])
        return (*self.built.versions, *(one for one in more if one not in self.built.versions))

    # ---- devices --------------------------------------------------------------------------------

    def track(self, device: str) -> DeviceTrack:
        return self.recorder.devices[device]

    def at(self, device: str, at_s: float) -> Change:
        """What the device had on its slot at a time."""
        changes = self.track(device).changes
        place = bisect_right(changes, at_s, key=lambda change: change.at_s)
        return changes[place - 1] if place else NO_VERSION

    def champion(self, device: str) -> str | None:
        return self.at(device, self.ends_s).champion

    def targets(self, target: str) -> list[DeviceSpec]:
        return [device for device in self.devices.values() if is_target(device, target)]

    def wedged(self) -> list[str]:
        """Devices that are up at the end, with a version that nothing serves, or in the middle of
        something."""
        return [device for device in self.devices if self._is_wedged(device)]

    def _is_wedged(self, device: str) -> bool:
        track = self.track(device)
        if not track.on or not track.on[-1][1]:
            return False
        change = self.at(device, self.ends_s)
        unserved = change.champion is not None and not track.serving
        return unserved or change.state not in {state.value for state in RESTING}

    def false_rollbacks(self) -> list[tuple[str, str, str]]:
        """(device, version, cause) where the version is not bad on such a device."""
        return [
            (one.device, one.version, one.cause)
            for one in self.recorder.rollbacks
            if not self.built.is_bad(one.version, self.devices[one.device].kind.architecture)
        ]

    def bytes_up_per_device_day(self) -> float:
        """Of MQTT topics and payloads, on average over the devices."""
        total = sum(self.outcome.bytes_up.values())
        return total / max(len(self.devices), 1) / (self.ends_s / DAY_S)

    # ---- accuracy -------------------------------------------------------------------------------

    def accuracy(
        self, devices: Collection[str] | None = None, after_s: float = 0.0, before_s: float = 1e300
    ) -> float | None:
        """The share of right answers; a window counts at its end. Answers that are no number are
        wrong."""
        return share_right(
            window
            for window in self.recorder.windows
            if after_s <= window.at_s < before_s and (devices is None or window.device in devices)
        )

    # ---- rollouts and drift ---------------------------------------------------------------------

    @cached_property
    def rollouts(self) -> tuple[RolloutRecord, ...]:
        """In order of their start. The n-th that the controller has is the n-th of the script."""
        starts = [step for step in self.built.spec.script if isinstance(step, StartRollout)]
        return tuple(
            self._rollout(id_, points, self._start_of(points, starts))
            for id_, points in sorted(self.recorder.rollouts.items())
        )

    def _start_of(
        self, points: Sequence[tuple[float, dict[str, Any]]], starts: Sequence[StartRollout]
    ) -> StartRollout | None:
        """The script's step; None when a retraining policy started it."""
        at_s, row = points[0]
        own = [
            step
            for step in starts
            if self.built.versions[step.model] == row["version"] and step.at_s <= at_s
        ]
        return max(own, key=lambda step: step.at_s, default=None)

    def _rollout(
        self,
        id_: int,
        points: Sequence[tuple[float, dict[str, Any]]],
        step: StartRollout | None,
    ) -> RolloutRecord:
        version, started_s = points[0][1]["version"], points[0][0]
        selector = parse(step.selector if step else "all")
        matching = tuple(
            device.id
            for device in self.devices.values()
            if selector.matches(Labelled(device.id, device.labels))
        )
        exposed = sorted(self.recorder.exposed.get(version, {}).items(), key=lambda one: one[1])
        rolled_back = {
            one.device
            for one in self.recorder.rollbacks
            if one.version == version and one.at_s >= started_s
        }
        return RolloutRecord(
            id=id_,
            version=version,
            selector=str(selector),
            waves=step.waves if step else (),
            matching=matching,
            points=tuple(points),
            exposed=tuple((device, at) for device, at in exposed if device in set(matching)),
            rolled_back=tuple(sorted(rolled_back)),
        )

    def time_to_share_s(self, rollout: RolloutRecord, share: float = RUNNING_SHARE) -> float | None:
        """From the rollout's start until so many of its devices run the version at once."""
        needed = max(1, -(-int(share * 1000) * len(rollout.matching) // 1000))
        running: set[str] = set()
        for at_s, device, champion in self._champion_changes(rollout.matching):
            if champion == rollout.version:
                running.add(device)
            else:
                running.discard(device)
            if len(running) >= needed:
                return max(0.0, at_s - rollout.started_s)
        return None

    def _champion_changes(self, devices: Iterable[str]) -> list[tuple[float, str, str | None]]:
        return sorted(
            (
                (change.at_s, device, change.champion)
                for device in devices
                for change in self.track(device).changes
            ),
            key=lambda one: one[:2],
        )

    @cached_property
    def alarms(self) -> tuple[Alarm, ...]:
        """In the order in which they were raised."""
        raised: dict[int, Alarm] = {}
        cleared: dict[int, float] = {}
        for row in self.recorder.happened:
            if row.kind == "drift.cleared":
                cleared[row.data["alarm"]] = row.at_s
            elif row.kind == "drift.raised":
                data = row.data
                raised[data["alarm"]] = Alarm(
                    raised_s=row.at_s,
                    cleared_s=None,
                    scope=data["scope"],
                    key=data["subject"],
                    cause=data["cause"],
                    sensor=data["sensor"],
                    score=data["score"],
                    threshold=data["threshold"],
                    explanation=data["explanation"],
                )
        return tuple(
            Alarm(**{**alarm.__dict__, "cleared_s": cleared.get(id_)})
            for id_, alarm in raised.items()
        )


def share_right(windows: Iterable[Window]) -> float | None:
    right = total = 0
    for window in windows:
        right += window.right
        total += window.answers + window.nonfinite + window.errors
    return right / total if total else None


def by_version(windows: Iterable[Window]) -> dict[str, list[Window]]:
    grouped: dict[str, list[Window]] = defaultdict(list)
    for window in windows:
        grouped[window.version].append(window)
    return grouped
