"""The documents of rollouts; see `documents.base`.

A rollout's terms are the core's own (`RolloutTerms` in the API's description). Here they are a
mapping, which the controller checks and answers in full.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents.base import Document
from edgeloop_protocol.limits import NAME_MAX_CHARS, TEXT_MAX_CHARS


class AbortRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(max_length=TEXT_MAX_CHARS)] = "aborted by hand"


class ReasonRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARS)]


class RollBackRequest(ReasonRequest):
    to: str | None = Field(
        default=None, description="NAME@VERSION for all; null: what each device had before"
    )


class ApprovalRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wave: int | None = Field(
        default=None, ge=0, description="null: the next that waits; 0: the shadow phase"
    )
    by: Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)] = Field(
        default="local", description="where the controller does not know who asks"
    )


class ApprovalDocument(Document):
    wave: int = Field(description="from 1; 0: the shadow phase")
    by: str
    at: float


class PlannedWaveDocument(Document):
    wave: int = Field(description="from 1")
    devices: list[str]
    bytes: int
    begins_at: float
    ends_at: float | None


class CauseDocument(Document):
    cause: str
    devices: list[str]


class PlannedShadowDocument(Document):
    """Who would run the version in shadow before the first wave."""

    devices: list[str]
    asked: int
    bytes: int = Field(description="fetched for it; the waves fetch anew")
    begins_at: float | None
    ends_at: float | None = Field(description="at the earliest; null: not by itself")
    cannot: list[CauseDocument] = Field(
        description="who would not, where fewer would than were asked for"
    )


class RolloutPlanDocument(Document):
    """What a rollout would do now. The end is the earliest that the schedule allows."""

    matching: int
    waves: list[PlannedWaveDocument]
    cannot: list[CauseDocument]
    later: list[str] = Field(description="offline devices that would get it when they are back")
    has_it: list[str] = Field(description="devices that run it already")
    offline: int = Field(description="of the devices of the waves")
    bytes: int
    bytes_without_patches: int
    patched: int = Field(description="devices that would fetch a patch")
    ends_at: float | None
    cut_short: bool = Field(description="too long to be played: the end is the least")
    waits: str = Field(description="where it would stay, if it does not end")
    overlaps: list[int] = Field(description="unfinished rollouts on the same devices and slot")
    unknown_timezones: list[str] = Field(description="labels that are taken for UTC")
    shadow: PlannedShadowDocument | None = Field(description="null: none is asked for")
    unsigned: str = Field(
        default="", description="why it cannot start before somebody signs; empty: it can"
    )


class MemberCounts(Document):
    offered: int
    committed: int
    failed: int
    withdrawn: int
    ineligible: int
    held: int


class MemberDocument(Document):
    device_id: str
    wave: int = Field(description="from 1")
    phase: str
    offered_at: float | None
    settled_at: float | None
    before_digest: str | None
    cause: str


class VerdictDocument(Document):
    """What one gate said last."""

    gate: str
    at: float = Field(description="when it came to say so")
    wave: int = Field(description="from 1; 0: the shadow phase")
    halted: bool
    sentence: str
    looked: int = Field(description="how many devices or examples it has seen")
    evidence: dict[str, Any]


class ShadowDeviceDocument(Document):
    device_id: str
    stage: str = Field(description="given, refused, taken_back")
    given_at: float
    taken_back_at: float | None
    cause: str
    compared: int = Field(description="examples, answered or not, beside the champion")
    disagreements: int


class ShadowDocument(Document):
    """The phase before the first wave. `outcome` is null before it is over; then `sentence` says
    what it came to, and until then what it waits for."""

    asked: int = Field(description="devices")
    outcome: str | None = Field(description="held, let_go_on, broken, stopped")
    sentence: str
    overdue: bool = Field(description="it waits for a person, or for more")
    began_at: float | None
    ended_at: float | None
    challenger: int | None = Field(description="its id, once a device has it")
    devices: list[ShadowDeviceDocument]


class RolloutSummary(Document):
    id: int
    name: str
    version: str
    manifest_digest: str
    slot: str
    selector: str
    waves: list[str]
    status: str
    wave: int = Field(description="the present one, from 1")
    verdict: str
    started_at: float
    started_by: str = Field(
        default="", description="who has proved to be; empty: a machine, or nobody had to say"
    )
    wave_started_at: float | None
    ended_at: float | None
    training_run_id: int | None
    members: MemberCounts


class RolloutDetail(RolloutSummary):
    terms: Any
    """A mapping, as in the API's `RolloutTerms`; the controller gives the class itself."""
    approvals: list[ApprovalDocument]
    devices: list[MemberDocument]
    verdicts: list[VerdictDocument] = Field(default=[], description="one for each gate")
    shadow: ShadowDocument | None = Field(default=None, description="null: it has no such phase")

    @property
    def is_in_shadow(self) -> bool:
        """Whether no wave has begun, or ever will, for its shadow phase."""
        shadow = self.shadow
        return shadow is not None and shadow.outcome not in ("held", "let_go_on")
