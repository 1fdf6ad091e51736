"""What the rollout engine takes and gives: terms, state, evidence and effects, as frozen values.

Invariants: nothing here decides; `core.rollout` re-exports every name, so that services import one
module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from edgeloop_controller.core.device_change import Changes
from edgeloop_controller.core.schedule_terms import Schedule
from edgeloop_controller.core.shadow_terms import ShadowTerms
from edgeloop_controller.core.shadow_types import ShadowOff, ShadowOn, ShadowSeen, ShadowState
from edgeloop_controller.core.strata import SITE_LABEL, Stratum
from edgeloop_protocol.config import Config
from edgeloop_protocol.limits import NAME_MAX_CHARS
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Inventory, Probation, SlotReported, VersionRef


class RolloutStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"
    DONE = "done"


class MemberPhase(StrEnum):
    """Where one device stands in one rollout."""

    OFFERED = "offered"
    COMMITTED = "committed"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    INELIGIBLE = "ineligible"
    HELD = "held"


@dataclass(frozen=True)
class Wave:
    """`count` devices, or `percent` of those that match, cumulative over the waves."""

    count: int | None = None
    percent: float | None = None


class ProbationTerms(Probation):
    """As people write it: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RolloutTerms(Config):
    """What a wave must show before the next one; seconds by the controller's clock.

    The same in the HTTP API and in a policy's file. Where the old version is compared, it runs in
    shadow during probation and for the agent's `limits.shadow_after_commit_s` after the commit (an
    hour by default), and a probation lasts at least `min_compared` examples: a smaller
    `probation.min_examples` is raised to that.

    What a device may change by, beyond the control devices of its architecture and its site
    (`site_label`), over the same time: `max_crash_rise` crashes of its runner,
    `max_error_rate_rise` of its examples without a finite answer, ratios of its p95 latency and its
    memory, a fall of its mean confidence by `max_confidence_drop`, and the share of its answers
    that go to other labels (`max_prediction_shift`). Looks are taken `soak_s` after the wave began,
    and each time that the wave has lasted twice as long. Where there are control devices, half of
    the wave's devices have to answer `min_watched` examples before the next wave, within the
    deadline; and where labels come, a wave of more than one device waits as long for `min_labelled`
    of them.

    With `shadow` the version runs beside the old one first, on some devices, and no wave begins
    before that has shown what it must.
    """

    soak_s: float = Field(default=30.0, ge=0)
    deadline_s: float = Field(default=3600.0, gt=0)
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    max_disagreement: float = Field(default=0.50, ge=0, le=1)
    disagreement_margin: float = Field(default=0.40, ge=0, le=1)
    min_compared: int = Field(default=50, ge=0)
    max_accuracy_drop: float = Field(default=0.02, ge=0, le=1)
    false_halt_rate: float = Field(default=0.01, gt=0, lt=1)
    control_group: bool = True
    min_watched: int = Field(default=100, ge=0)
    min_labelled: int = Field(default=2000, ge=0)
    max_crash_rise: float = Field(default=0.0, ge=0)
    max_error_rate_rise: float = Field(default=0.005, ge=0, le=1)
    max_latency_ratio: float = Field(default=1.5, ge=1)
    max_memory_ratio: float = Field(default=1.5, ge=1)
    max_confidence_drop: float = Field(default=0.10, ge=0, le=1)
    max_prediction_shift: float = Field(default=0.35, ge=0, le=1)
    site_label: str = Field(default=SITE_LABEL, min_length=1, max_length=NAME_MAX_CHARS)
    probation: ProbationTerms = ProbationTerms()
    schedule: Schedule = Schedule()
    shadow: ShadowTerms | None = Field(default=None, exclude_if=lambda terms: terms is None)

    @model_validator(mode="after")
    def _compares_enough(self) -> Self:
        if self.probation.compare and self.probation.min_examples < self.min_compared:
            raised = self.probation.model_copy(update={"min_examples": self.min_compared})
            object.__setattr__(self, "probation", raised)
        return self


def with_first_approval(terms: RolloutTerms) -> RolloutTerms:
    """The same, and wave 1 waits for a person."""
    approve = tuple(sorted({1, *terms.schedule.approve}))
    schedule = terms.schedule.model_copy(update={"approve": approve})
    return terms.model_copy(update={"schedule": schedule})


@dataclass(frozen=True)
class RolloutSpec:
    id: int
    target: VersionRef
    manifest: Manifest
    slot: str
    selector: str
    waves: tuple[Wave, ...]
    terms: RolloutTerms
    withheld: str = ""
    """Why the version may be offered to no device now, in words; empty: it may."""


@dataclass(frozen=True, slots=True)
class Member:
    device_id: str
    wave: int
    phase: MemberPhase
    offered_at: float | None = None
    settled_at: float | None = None
    before_digest: str | None = None
    cause: str = ""


@dataclass(frozen=True)
class RolloutState:
    status: RolloutStatus
    wave: int
    wave_started_at: float | None
    members: Mapping[str, Member]
    verdict: str = ""
    approved: frozenset[int] = frozenset()
    """Waves that a person has approved, from 1; 0: that the shadow phase be over."""
    shadow: ShadowState = field(default_factory=ShadowState)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What the engine may know of a device; `labels` are the effective ones."""

    id: str
    labels: Mapping[str, str]
    online: bool
    inventory: Inventory
    slots: Mapping[str, SlotReported]
    has_seen_offer: bool
    """Whether what it reports was said knowing what it is assigned now: until then a refusal or a
    champion in `slots` may answer an older offer."""
    assigned_digest: str | None
    """What the slot of this rollout is assigned now."""
    busy_with: int | None
    """Another running rollout that holds the slot of this device."""
    quarantine: str = ""
    """Why it is in quarantine; empty: it is not."""
    challenger_id: int | None = None
    """The challenger that the slot of this device has, of whomever."""


@dataclass(frozen=True)
class ComparedWindow:
    """One telemetry window of a member on the target, with the old version in shadow."""

    device_id: str
    shadow: VersionRef
    count: int
    disagreements: int


@dataclass(frozen=True)
class LabelledPair:
    """A labelled example that both versions answered."""

    device_id: str
    target_correct: bool
    shadow_correct: bool


@dataclass(frozen=True, eq=False)
class Look:
    """Members of the wave, and the devices that the lot left on the old version, as they stood when
    the `number`-th look of the wave was taken; both count from 1. Rows in the lot's order."""

    wave: int
    number: int
    strata: Sequence[Stratum]
    is_member: NDArray[np.bool_]
    changes: Changes
    old: Sequence[VersionRef]
    """What the control devices run."""


@dataclass(frozen=True)
class Evidence:
    """In the order of arrival, since the rollout's start; `look` is the last one."""

    windows: Sequence[ComparedWindow] = ()
    pairs: Sequence[LabelledPair] = ()
    look: Look | None = None
    shadow: Sequence[ShadowSeen] = ()
    """One for each device and champion."""


GateName = Literal[
    "failures",
    "disagreement",
    "accuracy",
    "crashes",
    "errors",
    "latency",
    "memory",
    "confidence",
    "predictions",
    "shadow_failures",
    "shadow_disagreement",
    "shadow_errors",
    "shadow_latency",
]


@dataclass(frozen=True)
class Verdict:
    """What one gate says. `looked` is how many members or examples it has seen."""

    gate: GateName
    halted: bool
    sentence: str
    looked: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfferTo:
    device_id: str
    wave: int


@dataclass(frozen=True)
class WithdrawFrom:
    """The device goes back to what it was assigned before (`before_digest`; None: nothing)."""

    device_id: str
    before_digest: str | None
    reason: str


@dataclass(frozen=True)
class Note:
    """An event for the log: `kind` as in `Event.kind`."""

    kind: str
    detail: str


Effect = OfferTo | WithdrawFrom | ShadowOn | ShadowOff | Note


@dataclass(frozen=True)
class Step:
    state: RolloutState
    effects: tuple[Effect, ...]
    waits_until: float | None = field(default=None, compare=False)
    """When the schedule allows more, although nothing else changes; None: no time will."""
    verdicts: tuple[Verdict, ...] = field(default=(), compare=False)
    """What the gates said, where they were asked: why, not what is to be done."""
