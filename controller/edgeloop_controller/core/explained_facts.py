"""What is known of one device, as frozen values: what `core.explanation` explains.

Invariants: nothing here decides; times are seconds since 1970 by the controller's clock; facts are
of one moment. A state that keeps a device from what it should run, and that neither a slot nor a
rollout says (quarantine, held out), comes as a `Hold`: explaining it needs no new code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeloop_controller.core.rollout_types import Member, MemberPhase, RolloutStatus
from edgeloop_protocol.messages import ChallengerReported, SlotReported


@dataclass(frozen=True)
class Unsigned:
    """Why a version may not be offered now. `why`: a clause; `remedy`: the command for it."""

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}"


@dataclass(frozen=True)
class ConcernedRollout:
    """A rollout that has the device as a member, or whose selector matches it."""

    id: int
    target: str
    """NAME@VERSION."""
    target_digest: str
    status: RolloutStatus
    wave: int
    """From 0."""
    waves: int
    verdict: str
    started_at: float
    ended_at: float | None
    deadline_s: float
    matches: bool
    """Now: a member may have lost the label that it was chosen by."""
    member: Member | None
    is_in_shadow: bool = False
    """Its shadow phase is ahead of the first wave."""
    shadow_is_overdue: bool = False
    """And waits for a person, or for more."""
    waits_for_approval_of: int | None = None
    """The wave that comes next, from 1, where a person has to approve it and has not."""
    unsigned: Unsigned | None = None
    """Of its version."""

    @property
    def is_active(self) -> bool:
        return self.status in (RolloutStatus.RUNNING, RolloutStatus.PAUSED)

    @property
    def is_over(self) -> bool:
        return not self.is_active and self.status is not RolloutStatus.QUEUED

    @property
    def holds(self) -> bool:
        """Whether no other rollout may touch the slot of this device."""
        holding = (MemberPhase.OFFERED, MemberPhase.COMMITTED)
        return self.is_active and self.member is not None and self.member.phase in holding

    @property
    def in_last_wave(self) -> bool:
        return self.wave >= self.waves - 1


@dataclass(frozen=True)
class Assigned:
    """What a slot is assigned. `digest` is None where it shall run nothing new."""

    version: str
    """NAME@VERSION; empty for none."""
    digest: str | None
    reason: str


@dataclass(frozen=True)
class AssignedChallenger:
    id: int
    version: str
    digest: str
    rollout_id: int | None = None
    """Whose shadow phase it is."""


@dataclass(frozen=True)
class OpenAlarm:
    """A drift alarm of what the slot runs that the device is part of: its own, its label's, the
    fleet's."""

    id: int
    scope: str
    key: str
    cause: str
    sensor: str | None
    score: float
    threshold: float
    raised_at: float


@dataclass(frozen=True)
class SlotFacts:
    slot: str
    reported: SlotReported | None
    heard_at: float | None
    """When it was reported last."""
    assigned: Assigned | None
    rollouts: tuple[ConcernedRollout, ...] = ()
    """Newest first: all that are not over, and the newest that is."""
    challenger: AssignedChallenger | None = None
    alarms: tuple[OpenAlarm, ...] = ()

    @property
    def challenger_reported(self) -> ChallengerReported | None:
        """What the device says of the challenger that it is assigned, or still has."""
        return self.reported.challenger if self.reported else None


@dataclass(frozen=True)
class Hold:
    """Something that keeps the device from being offered anything, by its name."""

    name: str
    since: float | None
    cause: str
    remedy: str


@dataclass(frozen=True)
class Broker:
    connected: bool
    address: str
    reason: str = ""
    """Why it is not connected."""


@dataclass(frozen=True)
class DeviceFacts:
    id: str
    broker: Broker
    telemetry_without_hello: bool = False
    """Of a device that never said hello: whether records of it came all the same."""
    known: bool = True
    """Whether it ever said hello. If not, what follows is empty."""
    online: bool = False
    last_seen_at: float | None = None
    offline_why: str = ""
    """Of the event that says that it went offline."""
    labels: Mapping[str, str] = field(default_factory=dict)
    revision_desired: int = 0
    revision_seen: int = 0
    slots: tuple[SlotFacts, ...] = ()
    holds: tuple[Hold, ...] = ()

    @property
    def has_heard(self) -> bool:
        """Whether what it reports was said knowing all that it is to run."""
        return self.revision_seen >= self.revision_desired
