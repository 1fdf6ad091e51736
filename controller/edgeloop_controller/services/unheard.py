"""Devices of which a hello or a report never came here, as their telemetry shows (EL-STATE-6).

Invariants: each is asked for a hello until it says one, at most SAID_AGAIN_MAX a tick; at most
UNHEARD_MAX are remembered, the others show themselves again by their next telemetry. What a restart
forgets is found again when the broker is connected: known devices are asked then anyway, and
strangers are those whose telemetry is stored and that are no devices.
"""

import threading
from collections.abc import Iterable
from typing import Final

from edgeloop_controller.services.desired import (
    SAID_AGAIN_MAX,
    SAY_AGAIN_S,
    Outbound,
    desired_message,
)
from edgeloop_controller.store import devices, telemetry
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import Desired, encode
from edgeloop_protocol.topics import Down, down_topic

UNHEARD_MAX: Final = 10_000


class Unheard:
    """`ask` and `heard` are called by ingest, `look_for_strangers` by the broker's thread,
    `ask_again` by the reconciler."""

    def __init__(self, database: Database, outbound: Outbound, clock: Clock) -> None:
        self._database = database
        self._outbound = outbound
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: dict[str, float] = {}
        self._strangers_due = threading.Event()

    def ask(self, device_ids: Iterable[str]) -> None:
        """At once, and again until they are heard."""
        wanted = sorted(set(device_ids))
        with self._lock:
            for device_id in wanted[: max(0, UNHEARD_MAX - len(self._asked_at))]:
                self._asked_at.setdefault(device_id, self._clock.monotonic())
        self._say(wanted)

    def heard(self, device_ids: Iterable[str]) -> None:
        with self._lock:
            for device_id in device_ids:
                self._asked_at.pop(device_id, None)

    def look_for_strangers(self) -> None:
        """The broker is connected: a hello may have come while nobody listened."""
        self._strangers_due.set()

    def ask_again(self) -> None:
        """One tick's share: those that waited longest first."""
        now = self._clock.monotonic()
        if self._strangers_due.is_set():
            self._strangers_due.clear()
            with self._database.reading() as session:
                strangers = telemetry.strangers(session, UNHEARD_MAX)
            with self._lock:
                for device_id in strangers[: max(0, UNHEARD_MAX - len(self._asked_at))]:
                    self._asked_at.setdefault(device_id, float("-inf"))
        with self._lock:
            due = [id_ for id_, at in self._asked_at.items() if now - at >= SAY_AGAIN_S]
            due.sort(key=self._asked_at.__getitem__)
            due = due[:SAID_AGAIN_MAX]
            self._asked_at |= dict.fromkeys(due, now)
        self._say(due)

    def _say(self, device_ids: list[str]) -> None:
        if not device_ids:
            return
        with self._database.reading() as session:
            known = {row.id: row for row in devices.desired_of(session, device_ids)}
        for device_id in device_ids:
            device = known.get(device_id)
            desired = desired_message(device) if device is not None else Desired(revision=0)
            message = encode(desired.model_copy(update={"wants_hello": True}))
            self._outbound.publish(down_topic(device_id, Down.DESIRED), message)
