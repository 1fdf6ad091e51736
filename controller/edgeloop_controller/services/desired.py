"""From assignments to the Desired message that a device gets.

Invariants: a device's revision only grows, and grows only when what it shall run differs; the
message is written to the database before it is said; saying it again changes nothing on the
device, which answers every desired state with what it runs (EL-STATE-5): saying it is asking.
"""

import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from sqlalchemy.orm import Session

from edgeloop_controller.services.patches import Hints, Patches
from edgeloop_controller.store import assignments, challengers, devices, rollouts, versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.json_text import encode_column
from edgeloop_controller.store.tables import Challenger as ChallengerRow
from edgeloop_controller.store.tables import Version
from edgeloop_controller.store.versions import VersionRow
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.messages import (
    Challenger,
    Desired,
    Offer,
    Probation,
    ShadowBudget,
    SlotDesired,
    encode,
)
from edgeloop_protocol.topics import Down, down_topic

SAY_AGAIN_S: Final = 10.0
"""How long a device has to answer before it is told again."""

UNHEARD_S: Final = 30.0
"""Silence about an offer after which the device is asked how it stands."""

RECENTLY_SEEN_S: Final = 86_400.0
"""A device that counts as offline is asked too when it was heard within this: it may be back."""

OFFLINE_ASKED_EVERY_S: Final = 300.0
OFFLINE_ASKED_MAX: Final = 1000
"""How often how many of those that lag behind are, in turn: one whose hello a broker lost counts as
offline."""

SAID_AGAIN_MAX: Final = 100
"""Devices told again, and as many asked, a second: their answers must not come as a storm."""

SHARE_S: Final = (1.0, 10.0)
"""Of how long a time a tick makes up for, at least and at most."""


class Outbound(Protocol):
    """The part of a broker that services speak through."""

    def publish(self, topic: str, payload: bytes) -> bool:
        """False: not sent, say it again later."""


class Told(Protocol):
    """What a device is told: its row, in whatever shape it is at hand."""

    @property
    def id(self) -> str: ...

    @property
    def desired(self) -> list[dict[str, Any]]: ...

    @property
    def desired_revision(self) -> int: ...


class Revised(Protocol):
    """What a revision goes on from: a device's row, in whatever shape it is at hand."""

    @property
    def desired_revision(self) -> int: ...

    @property
    def revision_seen(self) -> int: ...


def next_revision(device: Revised) -> int:
    return max(device.desired_revision, device.revision_seen) + 1


def wanted_slots(session: Session, ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """What each of `ids` that has assignments shall run: the `slots` of its Desired message."""
    documents: dict[tuple[str, str | None, str, str], dict[str, Any]] = {}
    wanted: dict[str, list[dict[str, Any]]] = {}
    for row in assignments.among(session, ids):
        key = (row.slot, row.manifest_digest, encode_column(row.probation), row.reason)
        if key not in documents:
            documents[key] = _slot_desired(session, row)
        wanted.setdefault(row.device_id, []).append(documents[key])
    _add_challengers(session, ids, wanted)
    return wanted


def _add_challengers(
    session: Session, ids: Collection[str], wanted: dict[str, list[dict[str, Any]]]
) -> None:
    """A slot that is assigned nothing is wanted nothing new on, and challenged all the same."""
    documents: dict[int, dict[str, Any]] = {}
    for device_id, slot, challenger in challengers.assigned_among(session, ids):
        if challenger.id not in documents:
            documents[challenger.id] = _challenger(session, challenger)
        slots = [one for one in wanted.get(device_id, ()) if one["slot"] != slot]
        found = next((one for one in wanted.get(device_id, ()) if one["slot"] == slot), None)
        plain = found or SlotDesired(slot=slot).model_dump(mode="json")
        slots.append(plain | {"challenger": documents[challenger.id]})
        wanted[device_id] = sorted(slots, key=lambda one: str(one["slot"]))


def refresh(session: Session, ids: Collection[str]) -> set[str]:
    """Bring what devices shall run up to their assignments; those where it changed, which are to
    be told."""
    wanted = wanted_slots(session, ids)
    changed: list[dict[str, Any]] = []
    for row in devices.desired_of(session, ids):
        slots = wanted.get(row.id, [])
        if slots != row.desired:
            changed.append(
                {"key": row.id, "desired": slots, "desired_revision": next_revision(row)}
            )
    devices.save_desired(session, changed)
    return {row["key"] for row in changed}


def desired_message(device: Told) -> Desired:
    slots = tuple(SlotDesired.model_validate(slot) for slot in device.desired)
    return Desired(revision=device.desired_revision, slots=slots)


def offer(version: Version | VersionRow) -> Offer:
    return Offer(
        name=version.name,
        version=version.version,
        manifest_digest=version.manifest_digest,
        manifest_size_bytes=version.manifest_size_bytes,
        artifact_digest=version.artifact_digest,
        artifact_size_bytes=version.artifact_size_bytes,
    )


def _slot_desired(session: Session, row: assignments.AssignmentRow) -> dict[str, Any]:
    version = versions.row_by_digest(session, row.manifest_digest) if row.manifest_digest else None
    slot = SlotDesired(
        slot=row.slot,
        offer=offer(version) if version else None,
        probation=Probation.model_validate(row.probation),
        reason=row.reason,
    )
    return slot.model_dump(mode="json")


def _challenger(session: Session, row: ChallengerRow) -> dict[str, Any]:
    version = versions.row_by_digest(session, row.manifest_digest)
    assert version is not None  # a foreign key
    budget = ShadowBudget.model_validate(row.budget)
    return Challenger(offer=offer(version), budget=budget).model_dump(mode="json")


def _with_patches(desired: Desired, device_id: str, hints: Hints | None) -> Desired:
    """Shorter ways to what is offered, where there are any: no part of what is desired."""
    if hints is None or not hints.holders:
        return desired
    slots = []
    for slot in desired.slots:
        offered = slot.offer
        patch = hints.patch(device_id, slot.slot, offered.artifact_digest) if offered else None
        if offered is not None and patch is not None:
            slot = slot.model_copy(update={"offer": offered.model_copy(update={"patch": patch})})
        slots.append(slot)
    return desired.model_copy(update={"slots": tuple(slots)})


class DesiredPublisher:
    """Says desired states over the broker: when they change, to those that lag behind, and to
    those whose answer may have been lost."""

    def __init__(
        self, database: Database, outbound: Outbound, clock: Clock, patches: Patches | None = None
    ) -> None:
        self._database = database
        self._patches = patches
        self._outbound = outbound
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._ask_all = threading.Event()
        self._to_ask: deque[str] = deque()
        self._shared_at = self._offline_asked_at = clock.monotonic()
        self._offline_asked_last = ""

    def publish(self, device_ids: Iterable[str]) -> None:
        """Say the committed desired state of each device, if it has one."""
        wanted = sorted(set(device_ids))
        if not wanted:
            return
        with self._database.reading() as session:
            rows = [r for r in devices.desired_of(session, wanted) if r.desired_revision > 0]
            hints = self._hints(session, rows)
            for row in rows:
                self._say(row, hints)

    def ask_all(self) -> None:
        """What devices reported may have been lost: the coming `say_again`s ask them all."""
        self._ask_all.set()

    def say_again(self) -> None:
        """One tick's share of what is due; called by the reconciler, never twice at once.

        Told again: devices that have not reported the revision made for them (a crash or a broker
        may have lost it), and those that were silent about an offer. Asked: all, after `ask_all`;
        seldom, those that count as offline and lag behind.
        """
        share = self._share()
        with self._database.reading() as session:
            due = self._due(session)[:share]
            found = {row.id: row for row in devices.desired_of(session, due)}
            hints = self._hints(session, found.values())
            for device_id in due:
                self._say(found[device_id], hints)
            self._ask_some(session, share)

    def _share(self) -> int:
        """So that a fleet is told as fast by a controller that ticks seldom."""
        now, (least_s, most_s) = self._clock.monotonic(), SHARE_S
        passed_s, self._shared_at = now - self._shared_at, now
        return int(SAID_AGAIN_MAX * min(max(passed_s, least_s), most_s))

    def _due(self, session: Session) -> Sequence[str]:
        """Those that waited longest first, so that devices that never answer hold up no other."""
        now, heard_before = self._clock.monotonic(), self._clock.wall() - UNHEARD_S
        waiting = dict.fromkeys(devices.behind(session))
        waiting |= dict.fromkeys(rollouts.silent_about_offer(session, heard_before))
        with self._lock:
            self._said_at = {k: v for k, v in self._said_at.items() if k in waiting}
            said_at = {device_id: self._said_at.get(device_id, -1e9) for device_id in waiting}
        due = [device_id for device_id in waiting if now - said_at[device_id] >= SAY_AGAIN_S]
        due.sort(key=said_at.__getitem__)
        return due

    def _ask_some(self, session: Session, share: int) -> None:
        if not self._to_ask:
            self._to_ask.extend(self._due_to_ask(session))
        ids = list(islice(self._to_ask, share))
        found = {row.id: row for row in devices.desired_of(session, ids)}
        hints = self._hints(session, found.values())
        for device_id in ids:
            if device_id in found and not self._say(found[device_id], hints):
                return  # no broker: the same one next time
            self._to_ask.popleft()

    def _due_to_ask(self, session: Session) -> Sequence[str]:
        now, seen_since = self._clock.monotonic(), self._clock.wall() - RECENTLY_SEEN_S
        if self._ask_all.is_set():
            self._ask_all.clear()
            return devices.ids_to_ask(session, seen_since)
        if now - self._offline_asked_at >= OFFLINE_ASKED_EVERY_S:
            self._offline_asked_at = now
            return self._offline(session, seen_since)
        return ()

    def _offline(self, session: Session, seen_since: float) -> Sequence[str]:
        after = self._offline_asked_last
        ids = devices.behind_while_offline(session, seen_since, after, OFFLINE_ASKED_MAX)
        self._offline_asked_last = ids[-1] if len(ids) == OFFLINE_ASKED_MAX else ""
        return ids

    def _hints(self, session: Session, told: Collection[Told]) -> Hints | None:
        if self._patches is None:
            return None
        offers = [offer for row in told for slot in row.desired if (offer := slot.get("offer"))]
        targets = {offer["artifact_digest"] for offer in offers}
        return self._patches.hints(session, [row.id for row in told], targets)

    def _say(self, device: Told, hints: Hints | None) -> bool:
        message = encode(_with_patches(desired_message(device), device.id, hints))
        if not self._outbound.publish(down_topic(device.id, Down.DESIRED), message):
            return False
        with self._lock:
            self._said_at[device.id] = self._clock.monotonic()
        return True
