"""The document of `edgeloop why`."""

from pydantic import Field

from edgeloop_controller.api.documents import Document
from edgeloop_controller.core.explanation import Concern, Situation


class ExplanationDocument(Document):
    situation: Situation = Field(description="a stable name, for programs")
    concern: Concern = Field(description="`person`: it stays so until a person does something")
    sentence: str
    cause: str
    remedy: str = Field(description="what a person can do; `nothing` where nothing is to be done")
    since: float | None


class SlotWhy(Document):
    slot: str
    should_run: str = Field(description="NAME@VERSION; empty: nothing is assigned")
    runs: str = Field(description="NAME@VERSION as it reported; empty: nothing")
    heard_at: float | None = Field(description="when it reported the slot last")
    explanations: list[ExplanationDocument]


class WhyDocument(Document):
    """What most wants a person stands first in each list."""

    device: str
    known: bool = Field(description="whether it ever said hello")
    online: bool
    last_seen_at: float | None
    explanations: list[ExplanationDocument] = Field(description="of the device as a whole")
    slots: list[SlotWhy]
