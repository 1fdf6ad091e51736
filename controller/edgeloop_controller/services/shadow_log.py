"""What is known of a rollout's version in shadow, beside the champions of the devices.

Invariants: everything can be read again from the database, and comes to the same; each window is
read once, and held against the champion's of the same time once that is there.
"""

from collections import deque
from collections.abc import Container
from typing import Final

from sqlalchemy.orm import Session

from edgeloop_controller.core.rollout import ShadowSeen
from edgeloop_controller.errors import ControllerError
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.store import rollouts, shadow_phases, telemetry
from edgeloop_controller.store.rollouts import RolloutRow
from edgeloop_controller.store.shadow_phases import ChallengerWindow

UNPAIRED_MAX: Final = 2000
"""Windows that wait for the champion's of the same time; the oldest are given up."""


class _Sums:
    def __init__(self) -> None:
        self.count = self.disagreements = self.failed = self.windows = self.slower = 0


class ShadowLog:
    """Of one rollout, since it started."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._through = 0
        self._sums: dict[tuple[str, str], _Sums] = {}
        """(device, digest of the champion), as they first appeared."""
        self._champions_through = 0
        self._unpaired: deque[ChallengerWindow] = deque(maxlen=UNPAIRED_MAX)

    def read(self, session: Session, rollout: RolloutRow) -> bool:
        """What came since the last time; True if anything did. Nothing, once waves have begun."""
        if "shadow" not in rollout.terms or rollout.wave_started_at is not None:
            return False
        last = shadow_phases.last_window_id(session)
        fresh = last > self._through
        if fresh:
            for one in shadow_phases.windows_after(
                session, rollout.slot, rollout.manifest_digest, rollout.started_at, self._through
            ):
                self._add(one)
            self._through = last
        champions_last = telemetry.last_window_id(session)
        if not fresh and champions_last == self._champions_through:
            return False
        self._champions_through = champions_last
        return self._pair(session, rollout) or fresh

    def seen(self, devices: Container[str]) -> list[ShadowSeen]:
        found = []
        for (device_id, digest), sums in self._sums.items():
            if device_id not in devices:
                continue
            try:
                champion = self._registry.manifest(digest).ref()
            except ControllerError:  # a device runs what was never published here
                continue
            found.append(ShadowSeen(device_id, champion, **vars(sums)))
        return found

    def _add(self, one: ChallengerWindow) -> None:
        sums = self._sums.setdefault((one.device_id, one.champion_digest), _Sums())
        sums.count += one.examples
        sums.disagreements += one.disagreements
        sums.failed += one.errors + one.nonfinite
        # The p95 of merged windows is the greatest of them, and says little.
        if one.examples and one.windows == 1 and one.latency_p95_us > 0:
            self._unpaired.append(one)

    def _pair(self, session: Session, rollout: RolloutRow) -> bool:
        paired = False
        terms = rollouts.terms_of(rollout).shadow if self._unpaired else None
        for _ in range(len(self._unpaired)):
            one = self._unpaired.popleft()
            latency_us = shadow_phases.champions_latency(session, rollout.slot, one)
            if latency_us is None or terms is None:
                self._unpaired.append(one)
                continue
            paired = True
            sums = self._sums[one.device_id, one.champion_digest]
            sums.windows += 1
            sums.slower += one.latency_p95_us > terms.max_latency_ratio * latency_us > 0
        return paired
