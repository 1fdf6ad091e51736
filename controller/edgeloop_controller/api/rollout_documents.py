"""The documents of rollouts; see `api.documents`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop_controller.api.documents import Document
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Name, Probation

_DEFAULT = RolloutTerms()


class ProbationDocument(BaseModel):
    """As `edgeloop_protocol.messages.Probation`, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    min_s: float = Field(default=Probation().min_s, gt=0)
    min_examples: int = Field(default=Probation().min_examples, ge=0)
    max_s: float = Field(default=Probation().max_s, gt=0)
    max_error_rate: float = Field(default=Probation().max_error_rate, ge=0, le=1)
    max_latency_ratio: float = Field(default=Probation().max_latency_ratio, gt=0)
    compare: bool = Probation().compare


class TermsDocument(BaseModel):
    """What a wave must show before the next one; durations in seconds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    soak_s: float = Field(default=_DEFAULT.soak_s, ge=0)
    deadline_s: float = Field(default=_DEFAULT.deadline_s, gt=0)
    max_failed_fraction: float = Field(default=_DEFAULT.max_failed_fraction, ge=0, le=1)
    max_disagreement: float = Field(default=_DEFAULT.max_disagreement, ge=0, le=1)
    disagreement_margin: float = Field(default=_DEFAULT.disagreement_margin, ge=0, le=1)
    min_compared: int = Field(default=_DEFAULT.min_compared, ge=0)
    max_accuracy_drop: float = Field(default=_DEFAULT.max_accuracy_drop, ge=0, le=1)
    false_halt_rate: float = Field(default=_DEFAULT.false_halt_rate, gt=0, lt=1)
    probation: ProbationDocument = ProbationDocument()

    def terms(self) -> RolloutTerms:
        values = self.model_dump(exclude={"probation"})
        return RolloutTerms(**values, probation=Probation(**self.probation.model_dump()))


class RolloutStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    version: str
    selector: str = "all"
    waves: Annotated[list[str], Field(min_length=1, max_length=32)] = ["1", "25%", "100%"]
    slot: Name = "main"
    allow_empty: bool = False
    terms: TermsDocument = TermsDocument()


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
    terms: TermsDocument
    devices: list[MemberDocument]
