"""The documents of rollouts; see `api.documents`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edgeloop_controller.api.documents import Document
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Name


class RolloutStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    version: str
    selector: str = "all"
    waves: Annotated[list[str], Field(min_length=1, max_length=32)] = ["1", "5%", "25%", "100%"]
    slot: Name = "main"
    allow_empty: bool = False
    terms: RolloutTerms = RolloutTerms()


class AbortRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(max_length=TEXT_MAX_CHARS)] = "aborted by hand"


class MemberCounts(Document):
    offered: int
    committed: int
    failed: int
    withdrawn: int
    ineligible: int


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
    wave: int = Field(description="from 1")
    halted: bool
    sentence: str
    looked: int = Field(description="how many devices or examples it has seen")
    evidence: dict[str, Any]


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
    wave_started_at: float | None
    ended_at: float | None
    training_run_id: int | None
    members: MemberCounts


class RolloutDetail(RolloutSummary):
    terms: RolloutTerms
    devices: list[MemberDocument]
    verdicts: list[VerdictDocument] = Field(default=[], description="one for each gate")
