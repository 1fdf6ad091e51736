"""Devices that say nothing count as offline after a while.

Invariants: the fleet is read only when one of its devices may have been silent for long enough:
whatever is heard moves that time on, never back, unless the clock itself goes back.
"""

from edgeloop_controller.store import devices, events
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock


class Silence:
    def __init__(self, database: Database, clock: Clock, offline_after_s: float | None) -> None:
        self._database = database
        self._clock = clock
        self._offline_after_s = offline_after_s
        self._looked_at = 0.0
        self._not_before = 0.0

    def notice(self) -> None:
        now, after_s = self._clock.wall(), self._offline_after_s
        if after_s is None or self._looked_at <= now < self._not_before:
            return
        with self._database.writing() as session:
            silent = devices.silent(session, now - after_s)
            if silent:
                devices.set_offline(session, [device_id for device_id, _ in silent])
            for device_id, seen_at in silent:
                data = {"why": f"silent for {now - seen_at:.0f} s"}
                events.add(session, now, "device.disconnected", device_id, data)
            earliest = devices.earliest_seen(session)
        self._looked_at = now
        self._not_before = min(now, now if earliest is None else earliest) + after_s
