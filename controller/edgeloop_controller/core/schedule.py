"""Which of the devices that a wave has places for may be offered the version now.

Invariants: pure; what one schedule allows is allowed again by a second look at the same moment, so
that nothing but time and devices moves a rollout; `waits_until` is the next moment at which time
alone would allow more.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from edgeloop_controller.core.rollout_types import DeviceView, Member, MemberPhase, RolloutTerms
from edgeloop_controller.core.schedule_terms import DAY_MIN, WEEK_MIN, Hours

TIMEZONE_LABEL = "timezone"
MINUTE_S = 60.0
WEEK_S = WEEK_MIN * MINUTE_S
EARLY_S = 1e-6
"""A time that was computed may fall so much short of the one that it stands for."""
_THURSDAY_S = 3 * DAY_MIN * MINUTE_S
"""1970 began on one."""

UtcOffset = Callable[[str, float], float]
"""(zone, time) → seconds east of UTC there and then; 0 for a zone that is not known."""


def utc_everywhere(_zone: str, _at: float) -> float:
    return 0.0


@dataclass
class Chosen:
    """`devices` to offer to now; `kept`, in words, is what keeps others; until when, if time ends
    it."""

    devices: list[DeviceView]
    kept: str = ""
    waits_until: float | None = None


class Openings:
    """What `terms` allow at `now`, given what is under way among `fleet`, all that it is for."""

    def __init__(
        self,
        terms: RolloutTerms,
        members: Iterable[Member],
        fleet: Collection[DeviceView],
        now: float,
        utc_offset: UtcOffset,
    ) -> None:
        self._terms, self._schedule = terms, terms.schedule
        self._members = list(members)
        self._fleet = fleet
        self._now = now
        self._utc_offset = utc_offset
        self._hours = self._schedule.hours()

    def choose(self, candidates: Sequence[DeviceView], places: int) -> Chosen:
        """At most `places` of `candidates`, in their order.

        Pace, then sites, then hours: what keeps a device is said the same until that ends, although
        hours close meanwhile.
        """
        starts_at = self._schedule.starts_at
        if starts_at is not None and self._now < starts_at:
            return Chosen([], "waits for its start", starts_at)
        pace = _Pace(self._schedule.pace_per_min, self._members, self._now)
        sites = self._sites()
        if self._hours:  # they are for what begins at once: who is offline begins when it is back
            candidates = [device for device in candidates if device.online]
        chosen = Chosen([])
        for device in candidates:
            if len(chosen.devices) >= min(places, pace.left):
                break
            if sites is not None and not sites.has_room(device):
                _keep(chosen, f"waits for other devices of {sites.named(device)}", None)
                continue
            if self._hours and not self._is_open(device, chosen):
                continue
            if sites is not None:
                sites.take(device)
            chosen.devices.append(device)
        if pace.left <= len(chosen.devices) < min(places, len(candidates)):
            chosen.kept = f"is offered to {pace}"
            chosen.waits_until = pace.next_at
        return chosen

    def _is_open(self, device: DeviceView, chosen: Chosen) -> bool:
        zone = device.labels.get(TIMEZONE_LABEL, "")
        local_s = self._now + self._utc_offset(zone, self._now) + _THURSDAY_S
        closed_s = closed_for_s(self._hours, local_s % WEEK_S)
        if closed_s:
            _keep(chosen, "waits for maintenance hours", self._now + closed_s)
        return not closed_s

    def _sites(self) -> "_Sites | None":
        schedule = self._schedule
        if schedule.max_unavailable is None:
            return None
        label = schedule.unavailable_by
        names = {device.id: device.labels.get(label, "") for device in self._fleet}
        busy = Counter(
            names[member.device_id]
            for member in self._members
            if member.phase is MemberPhase.OFFERED
            and member.device_id in names
            and self._now < (member.offered_at or self._now) + self._terms.deadline_s
        )
        sizes = Counter(names.values())
        left = {name: schedule.unavailable_of(size) - busy[name] for name, size in sizes.items()}
        return _Sites(label, left)


class _Pace:
    """At most `per_min` offers in any minute; below one a minute, one in so long a time."""

    def __init__(self, per_min: float | None, members: Iterable[Member], now: float) -> None:
        self._per_min = per_min
        self.left: float = math.inf
        self.next_at: float | None = None
        if per_min is None:
            return
        span_s = MINUTE_S if per_min >= 1 else MINUTE_S / per_min
        recent = sorted(
            m.offered_at
            for m in members
            if m.offered_at is not None and m.offered_at > now - span_s + EARLY_S
        )
        self.left = max(0, max(1, int(per_min)) - len(recent))
        self.next_at = (recent[0] if recent else now) + span_s

    def __str__(self) -> str:
        return f"{self._per_min:g} devices a minute"


@dataclass
class _Sites:
    label: str
    left: dict[str, int]

    def has_room(self, device: DeviceView) -> bool:
        return self.left[device.labels.get(self.label, "")] > 0

    def take(self, device: DeviceView) -> None:
        self.left[device.labels.get(self.label, "")] -= 1

    def named(self, device: DeviceView) -> str:
        name = device.labels.get(self.label, "")
        return f"{self.label} {name}" if name else f"no {self.label}"


def closed_for_s(hours: Collection[Hours], week_s: float) -> float:
    """Seconds from one of the week until the next hours begin; 0 within them."""
    spans = [(one.start_min * MINUTE_S, one.length_min * MINUTE_S) for one in hours]
    if any((week_s - start_s) % WEEK_S < length_s for start_s, length_s in spans):
        return 0.0
    closed_s = min((start_s - week_s) % WEEK_S for start_s, _ in spans)
    return closed_s if closed_s > EARLY_S else 0.0


def _keep(chosen: Chosen, why: str, until: float | None) -> None:
    chosen.kept = chosen.kept or why
    if until is not None:
        chosen.waits_until = min(until, chosen.waits_until or until)
