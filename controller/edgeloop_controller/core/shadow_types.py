"""A rollout's shadow phase as values: its state, its evidence, and what it makes of devices.

Invariants: nothing here decides; a device that is chosen stays in `ShadowState.members`, whatever
becomes of it, as what it showed stays evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgeloop_protocol.messages import VersionRef


class ShadowStage(StrEnum):
    """Where one device stands in the shadow phase of one rollout."""

    GIVEN = "given"
    REFUSED = "refused"
    TAKEN_BACK = "taken_back"


class ShadowOutcome(StrEnum):
    """How the phase ended."""

    HELD = "held"
    LET_GO_ON = "let_go_on"
    """By a person, without all that it had to show."""
    BROKEN = "broken"
    """A gate broke."""
    STOPPED = "stopped"
    """The rollout was ended."""


@dataclass(frozen=True, slots=True)
class ShadowMember:
    device_id: str
    stage: ShadowStage
    given_at: float
    taken_back_at: float | None = None
    cause: str = ""
    """Why it refused the version, or why it was taken back."""

    @property
    def has_it(self) -> bool:
        """Whether it has the challenger still, running or refused."""
        return self.taken_back_at is None

    @property
    def takes_place(self) -> bool:
        return self.has_it or self.stage is ShadowStage.REFUSED


@dataclass(frozen=True)
class ShadowState:
    """`began_at`: None before the first look; `ended_at`: None before it is over."""

    began_at: float | None = None
    ended_at: float | None = None
    members: Mapping[str, ShadowMember] = field(default_factory=dict)
    replaced: int = 0
    """Devices that gave their place to another."""
    is_overdue: bool = False
    """Its deadline passed with too little evidence; it was said."""
    outcome: ShadowOutcome | None = None
    said: str = ""
    """What it came to, in words, once it is over."""


@dataclass(frozen=True)
class ShadowSeen:
    """What one device told of the version in shadow of one champion. Of `count` answers so many
    disagreed; `failed` examples had no finite answer. Of `windows` whose latency can be held
    against the champion's, so many were `slower` than the terms allow."""

    device_id: str
    champion: VersionRef
    count: int
    disagreements: int
    failed: int
    windows: int
    slower: int


@dataclass(frozen=True)
class ShadowOn:
    """The device gets the rollout's version as a challenger."""

    device_id: str


@dataclass(frozen=True)
class ShadowOff:
    """The device is rid of it."""

    device_id: str
    reason: str
