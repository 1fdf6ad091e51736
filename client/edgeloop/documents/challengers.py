"""The documents of challengers; see `documents.base`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents.base import Document
from edgeloop_protocol.messages import Name, ShadowBudget


class ChallengerStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    version: str
    selector: Annotated[str, Field(min_length=1)] = "all"
    slot: Name = "main"
    budget: ShadowBudget = ShadowBudget()


class SeenDocument(Document):
    """Of `count` answers, `disagreements` had another label than the champion's; `skipped` examples
    it never saw, because its processor budget was spent."""

    count: int
    errors: int
    nonfinite: int
    disagreements: int
    skipped: int
    cpu_fraction: float = Field(description="of one core, over the windows that were told of")
    latency_p95_us: float = Field(description="the largest of a window")
    memory_bytes: int = Field(description="the largest of a window")


class ChallengerDevice(Document):
    device_id: str
    state: str = Field(description="as the device reported it; empty: it has not yet")
    cause: str
    waiting: str
    seen: SeenDocument | None


class ChallengerSummary(Document):
    id: int
    name: str
    version: str
    manifest_digest: str
    slot: str
    selector: str
    budget: ShadowBudget
    started_at: float
    ended_at: float | None
    rollout_id: int | None = Field(description="whose shadow phase it is; null: of its own")
    in_shadow: int = Field(description="devices that report it so now")
    refused: int
    devices: int
    seen: SeenDocument | None = Field(description="of all devices")


class ChallengerDetail(ChallengerSummary):
    by_device: list[ChallengerDevice]
