"""A virtual world, written down as it goes by: what a report and expectations are made of.

Invariants: told of everything by `Seen`, but for what the controller judges by, which is no part of
a trace (`evidence`); keeps what changed, not what stayed; decides nothing (`recording` reads it
back).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from edgeloop_protocol.lifecycle import SlotState
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.run.evidence import EvidenceRecord

_RUNS_CANDIDATE: Final = frozenset({SlotState.ACTIVATING.value, SlotState.PROBATION.value})
WITHDRAWN: Final = "withdrawn"
_TOLD: Final = ("event.rollout.", "event.drift.", "event.training.", "event.version.")


class Change(NamedTuple):
    """From `at_s` on. `champion`, `trial`: `name@version`, or None; a trial is a candidate that
    answers in the champion's place, until it is committed or rolled back."""

    at_s: float
    champion: str | None
    trial: str | None
    state: str


class Window(NamedTuple):
    """`answers`: those that are numbers."""

    at_s: float
    device: str
    version: str
    answers: int
    right: int
    nonfinite: int
    errors: int


class Rollback(NamedTuple):
    """A device gave a version up by itself; what the controller took back is none."""

    at_s: float
    device: str
    version: str
    cause: str


class Happened(NamedTuple):
    """A row of the controller's event log."""

    at_s: float
    kind: str
    data: dict[str, Any]


class Span(NamedTuple):
    from_s: float
    to_s: float
    text: str


@dataclass
class DeviceTrack:
    """`on`, `connected`: (at_s, whether); `serving`: what a runner serves now."""

    changes: list[Change] = field(default_factory=list)
    on: list[tuple[float, bool]] = field(default_factory=list)
    connected: list[tuple[float, bool]] = field(default_factory=list)
    refused: str | None = None
    serving: set[int] = field(default_factory=set)


class Recorder:
    """An observer of a World."""

    def __init__(self) -> None:
        self.devices: dict[str, DeviceTrack] = defaultdict(DeviceTrack)
        self.exposed: dict[str, dict[str, float]] = defaultdict(dict)
        """Version → device → when it first answered there."""
        self.rollbacks: list[Rollback] = []
        self.windows: list[Window] = []
        self.happened: list[Happened] = []
        self.rollouts: dict[int, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
        self.faults: list[Span] = []
        self.controller: list[tuple[float, bool]] = []
        """(at_s, whether it is up)."""
        self.evidence = EvidenceRecord()
        self._open_faults: dict[str, float] = {}
        self._on = {
            "slot.state": self._slot,
            "device.booted": self._booted,
            "device.died": self._died,
            "device.connected": self._connected,
            "device.disconnected": self._disconnected,
            "runner.serving": self._serving,
            "runner.exited": self._exited,
            "window": self._window,
            "rollout": self._rollout,
            "controller.started": self._controller_started,
            "controller.died": self._controller_died,
            "fault.begins": self._fault_begins,
            "fault.ends": self._fault_ends,
        }

    def __call__(self, seen: Seen) -> None:
        record = self._on.get(seen.what)
        if record is not None:
            record(seen)
        elif seen.what.startswith(_TOLD):
            kind = seen.what.removeprefix("event.")
            self.happened.append(Happened(seen.at_s, kind, dict(seen.data)))

    def close(self, ends_s: float) -> None:
        """What is still under way ends with the world."""
        for text, begun_s in self._open_faults.items():
            self.faults.append(Span(begun_s, ends_s, text))
        self._open_faults.clear()

    # ---- devices --------------------------------------------------------------------------------

    def _slot(self, seen: Seen) -> None:
        data, track = seen.data, self.devices[seen.part]
        trial = data["candidate"] if data["state"] in _RUNS_CANDIDATE else None
        change = Change(seen.at_s, data["champion"], trial, data["state"])
        if not track.changes or track.changes[-1][1:] != change[1:]:
            track.changes.append(change)
        for version in (change.champion, change.trial):
            if version is not None:
                self.exposed[version].setdefault(seen.part, seen.at_s)
        refused = data["refused"]
        if refused is not None and refused != track.refused:
            version, _, cause = refused.partition(": ")
            if cause != WITHDRAWN:
                self.rollbacks.append(Rollback(seen.at_s, seen.part, version, cause))
        track.refused = refused

    def _booted(self, seen: Seen) -> None:
        self.devices[seen.part].on.append((seen.at_s, True))

    def _died(self, seen: Seen) -> None:
        track = self.devices[seen.part]
        track.on.append((seen.at_s, False))
        track.serving.clear()
        self._disconnected(seen)

    def _connected(self, seen: Seen) -> None:
        self.devices[seen.part].connected.append((seen.at_s, True))

    def _disconnected(self, seen: Seen) -> None:
        connected = self.devices[seen.part].connected
        if connected and connected[-1][1]:
            connected.append((seen.at_s, False))

    def _serving(self, seen: Seen) -> None:
        self.devices[seen.part].serving.add(seen.data["runner"])

    def _exited(self, seen: Seen) -> None:
        self.devices[seen.part].serving.discard(seen.data["runner"])

    def _window(self, seen: Seen) -> None:
        data = seen.data
        self.windows.append(
            Window(
                seen.at_s,
                seen.part,
                data["version"],
                data["count"],
                data["right"],
                data["nonfinite"],
                data["errors"],
            )
        )

    # ---- controller and world -------------------------------------------------------------------

    def _rollout(self, seen: Seen) -> None:
        self.rollouts[seen.data["id"]].append((seen.at_s, dict(seen.data)))

    def _controller_started(self, seen: Seen) -> None:
        self.controller.append((seen.at_s, True))

    def _controller_died(self, seen: Seen) -> None:
        self.controller.append((seen.at_s, False))
        self.evidence.controller_died(seen.at_s)

    def _fault_begins(self, seen: Seen) -> None:
        self._open_faults[seen.data["fault"]] = seen.at_s

    def _fault_ends(self, seen: Seen) -> None:
        text = seen.data["fault"]
        begun_s = self._open_faults.pop(text, seen.at_s)
        self.faults.append(Span(begun_s, seen.at_s, text))
