"""What members and control devices did since the wave began, and before the rollout: read from the
windows and the crashes that came since the last time.

Three rows of sums a device (core.device_change): before the rollout; since the wave began, on the
target; and on anything else. They are frozen whenever a look is due.

Invariants: everything can be read again from the database, and comes to the same; at most
TRACKED_MAX devices are followed, drawn evenly by a hash that has nothing to do with the lot; a look
holds what was received before it was due.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from edgeloop_controller.core.device_change import AT, COLUMNS, changes
from edgeloop_controller.core.rollout import Look, Member, MemberPhase, RolloutTerms
from edgeloop_controller.core.strata import stratum_of
from edgeloop_controller.core.waves import LOOKS_MAX, look_number, look_taken_at, lot_of
from edgeloop_controller.errors import ControllerError
from edgeloop_controller.services.fleet import KnownDevice
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import crashes, rollouts, telemetry
from edgeloop_controller.store.rollouts import RolloutRow
from edgeloop_controller.store.tables import Rollout
from edgeloop_controller.store.telemetry import DeviceWindow
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import VersionRef

TRACKED_MAX: Final = 4096
"""Devices of one rollout that are followed; 4,000 control devices say hardly more than 2,000."""

BEFORE_S: Final = 3600.0
"""How far back a device's own time before the rollout reaches."""

BEFORE_WINDOWS_MAX: Final = 200_000
"""Windows of the whole fleet that are read of that time, the newest: it bounds the first look."""

LABELS_MAX: Final = 64
"""Of more labels, those that are as far apart as this are counted together."""

_EXPOSED: Final = (MemberPhase.OFFERED, MemberPhase.COMMITTED, MemberPhase.FAILED)
_BEFORE, _TARGET, _OTHER = range(3)


@dataclass(frozen=True, eq=False)
class _Frozen:
    """The sums when a look was due."""

    wave: int
    number: int
    at: float
    sums: NDArray[np.float64]


class ControlLog:
    """Of one rollout. `read` first, then `look`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rows: dict[str, int] = {}
        self._sums = np.zeros((0, 3, len(COLUMNS)))
        self._old: dict[str, str] = {}
        """Device → the version that it ran last, other than the target."""
        self._one_in = 0
        """One of so many devices is followed; 0: nothing was read yet."""
        self._wave_started_at: float | None = None
        self._windows_through = 0
        self._crashes_through = 0
        self._looked = 0
        self._frozen: _Frozen | None = None
        self._told: _Frozen | None = None
        self._terms: RolloutTerms | None = None
        self._look: Look | None = None
        self._look_of: tuple[_Frozen, Mapping[str, Member]] | None = None

    def read(
        self, session: Session, rollout: Rollout | RolloutRow, matching: int, now: float
    ) -> bool:
        """What came since the last time; True if a look became due. `matching`: how many devices
        match, which decides how many of them are followed."""
        started = rollout.wave_started_at
        if self._terms is None:
            self._terms = rollouts.terms_of(rollout)
        if started is None or not self._terms.control_group:
            return False
        if not self._one_in:
            self._begin(session, rollout, matching)
        if started != self._wave_started_at:
            self._begin_wave(session, started)
        number = look_number(started, self._terms.soak_s, now)
        if number > self._looked:
            self._take_look(session, rollout, number)
        elif self._looked >= LOOKS_MAX:
            return False
        last = telemetry.last_window_id(session)
        self._read_windows(session, rollout, last)
        return number > 0 and self._is_new()

    def _is_new(self) -> bool:
        """Once for each look."""
        told, self._told = self._told, self._frozen
        return told is not self._frozen

    def forget_look(self) -> None:
        """A device moved: where it stands may be another place."""
        self._look = None

    def look(
        self,
        rollout: Rollout | RolloutRow,
        members: Mapping[str, Member],
        matching: Iterable[str],
        fleet: Mapping[str, KnownDevice],
    ) -> Look | None:
        """The last look that was due, of those that are members or match now; the same object as
        long as nothing moved."""
        frozen = self._frozen
        if frozen is None or frozen.wave != rollout.wave + 1 or self._terms is None:
            return None
        if self._look is not None and self._look_of == (frozen, members):
            return self._look
        chosen = self._pool(members, matching, fleet, frozen.at)
        site_label = self._terms.site_label
        order = sorted(chosen, key=lambda device_id: lot_of(rollout.id, device_id))
        rows = np.array([self._rows[device_id] for device_id in order], dtype=np.int64)
        is_member = np.array([chosen[device_id] for device_id in order], dtype=bool)
        sums = frozen.sums[rows]
        after = np.where(is_member[:, None], sums[:, _TARGET], sums[:, _OTHER])
        controls = [device_id for device_id in order if not chosen[device_id]]
        self._look_of = (frozen, members)
        self._look = Look(
            wave=frozen.wave,
            number=frozen.number,
            strata=[stratum_of(fleet[device_id], site_label) for device_id in order],
            is_member=is_member,
            changes=changes(sums[:, _BEFORE], after),
            old=self._versions_of(controls),
        )
        return self._look

    def _pool(
        self,
        members: Mapping[str, Member],
        matching: Iterable[str],
        fleet: Mapping[str, KnownDevice],
        at: float,
    ) -> dict[str, bool]:
        """Devices of which something is known → whether the lot had made them members by then."""
        found: dict[str, bool] = {}
        for device_id in {*matching, *members}:
            if device_id not in self._rows or device_id not in fleet:
                continue
            member = members.get(device_id)
            if member is None:
                if not fleet[device_id].quarantine:
                    found[device_id] = False
            elif member.phase in _EXPOSED and member.offered_at is not None:
                found[device_id] = member.offered_at < at
        return {name: chosen for name, chosen in found.items() if self._rows[name] < self._known()}

    def _known(self) -> int:
        """Rows that the frozen sums have."""
        return 0 if self._frozen is None else len(self._frozen.sums)

    def _versions_of(self, controls: Sequence[str]) -> Sequence[VersionRef]:
        digests = dict.fromkeys(self._old[name] for name in controls if name in self._old)
        known = (self._manifest(digest) for digest in digests)
        return tuple(manifest.ref() for manifest in known if manifest is not None)

    def _manifest(self, digest: str) -> Manifest | None:
        """None: a device runs what was never published here."""
        try:
            return self._registry.manifest(digest)
        except ControllerError:
            return None

    # ---- reading --------------------------------------------------------------------------------

    def _begin(self, session: Session, rollout: Rollout | RolloutRow, matching: int) -> None:
        self._one_in = 2 ** max(0, math.ceil(math.log2(max(1, matching) / TRACKED_MAX)))
        last = telemetry.last_window_before(session, rollout.started_at)
        first = telemetry.last_window_before(session, rollout.started_at - BEFORE_S)
        first = max(first, last - BEFORE_WINDOWS_MAX)
        for window in self._windows(session, rollout.slot, first, last):
            if window.manifest_digest != rollout.manifest_digest:
                self._add(window, _BEFORE)

    def _begin_wave(self, session: Session, started: float) -> None:
        self._wave_started_at = started
        self._sums[:, _TARGET:] = 0.0
        self._windows_through = telemetry.last_window_before(session, started)
        self._crashes_through = crashes.last_before(session, started)
        self._looked = 0
        self._frozen = None

    def _take_look(self, session: Session, rollout: Rollout | RolloutRow, number: int) -> None:
        """What came after it was due is left for the next one."""
        started = rollout.wave_started_at
        assert started is not None
        assert self._terms is not None
        at = look_taken_at(started, self._terms.soak_s, number)
        self._read_windows(session, rollout, telemetry.last_window_before(session, at))
        crashed_through = crashes.last_before(session, at)
        for crash in crashes.between(session, self._crashes_through, crashed_through):
            if crash.slot == rollout.slot and crash.device_id in self._rows:
                on_target = crash.manifest_digest == rollout.manifest_digest
                row = self._rows[crash.device_id]
                self._sums[row, _TARGET if on_target else _OTHER, AT["crashes"]] += 1
        self._crashes_through = crashed_through
        self._looked = number
        sums = self._sums[: len(self._rows)].copy()
        self._frozen = _Frozen(rollout.wave + 1, number, at, sums)

    def _read_windows(self, session: Session, rollout: Rollout | RolloutRow, through: int) -> None:
        if through <= self._windows_through:
            return
        for window in self._windows(session, rollout.slot, self._windows_through, through):
            on_target = window.manifest_digest == rollout.manifest_digest
            self._add(window, _TARGET if on_target else _OTHER)
        self._windows_through = through

    def _windows(
        self, session: Session, slot: str, after: int, through: int
    ) -> Iterator[DeviceWindow]:
        """Of devices that are followed: of the others the id is all that is read."""
        found = telemetry.windows_between(session, slot, after, through)
        followed = [window_id for window_id, device_id in found if self._follows(device_id)]
        yield from telemetry.device_windows(session, followed)

    def _add(self, window: DeviceWindow, cell: int) -> None:
        row = self._row_of(window.device_id)
        if cell != _TARGET:
            self._old[window.device_id] = window.manifest_digest
        labels = min(len(window.predictions), LABELS_MAX)
        self._widen(len(COLUMNS) + labels)
        sums = self._sums[row, cell]
        sums[AT["examples"]] += window.examples
        sums[AT["failed"]] += window.errors + window.nonfinite
        if window.examples:
            if window.latency_p95_us > 0:
                sums[AT["log_latency"]] += window.examples * math.log(window.latency_p95_us)
                sums[AT["latency_weight"]] += window.examples
            # With the old version in shadow the runner holds two.
            if window.memory_bytes > 0 and not window.compared:
                sums[AT["log_memory"]] += window.examples * math.log(window.memory_bytes)
                sums[AT["memory_weight"]] += window.examples
        manifest = self._manifest(window.manifest_digest) if window.confidence else None
        if manifest is not None and manifest.baseline is not None:
            edges = manifest.baseline.confidence.edges
            middles = _middles(edges, 1 / max(1, len(manifest.labels)))
            if len(middles) == len(window.confidence):
                sums[AT["confidence"]] += float(np.dot(middles, window.confidence))
                sums[AT["confidence_weight"]] += sum(window.confidence)
        for label, answers in enumerate(window.predictions):
            sums[len(COLUMNS) + label % LABELS_MAX] += answers

    def _follows(self, device_id: str) -> bool:
        if device_id in self._rows or self._one_in == 1:
            return True
        drawn = hashlib.sha256(f"followed/{device_id}".encode()).digest()
        return int.from_bytes(drawn[:8]) % self._one_in == 0

    def _row_of(self, device_id: str) -> int:
        row = self._rows.setdefault(device_id, len(self._rows))
        if row >= len(self._sums):
            grown = np.zeros((max(64, 2 * row), *self._sums.shape[1:]))
            grown[:row] = self._sums[:row]
            self._sums = grown
        return row

    def _widen(self, columns: int) -> None:
        missing = columns - self._sums.shape[2]
        if missing > 0:
            self._sums = np.pad(self._sums, ((0, 0), (0, 0), (0, missing)))


def _middles(edges: Sequence[float], floor: float) -> NDArray[np.float64]:
    """Of the bins of a confidence, which lies between `floor` (1 / labels) and 1."""
    ends: list[Any] = [min(floor, *edges), *edges, 1.0] if edges else [floor, 1.0]
    bounds = np.array(ends, dtype=np.float64)
    middles: NDArray[np.float64] = (bounds[:-1] + bounds[1:]) / 2
    return middles
