"""Health, models, devices and events; see `documents.base`."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents.base import Document
from edgeloop_protocol.limits import CAPTURE_EXAMPLES_MAX, REQUEST_LINES_MAX, TEXT_MAX_CHARS
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import (
    Ask,
    ChallengerReported,
    Inventory,
    Name,
    Refusal,
    VersionRef,
)

DIAGNOSIS_TIMEOUT_S_DEFAULT: Final = 15.0
DIAGNOSIS_TIMEOUT_S_MAX: Final = 60.0


class BrokerHealth(Document):
    address: str
    embedded: bool
    connected: bool
    reason: str = Field(description="why it is not connected")
    restarts: int = Field(description="how often the embedded broker ended and was started again")


class IngestHealth(Document):
    """Counted since this process started."""

    waiting: int
    messages: int
    records: int
    duplicates: int
    lost: int
    merged: int
    gaps: int
    refused: int
    ignored: int
    dropped: int


class DeviceCount(Document):
    total: int
    online: int


class Health(Document):
    status: Literal["ok", "degraded"]
    version: str
    wire_version: int
    now: float
    broker: BrokerHealth
    ingest: IngestHealth
    devices: DeviceCount


class VersionSummary(Document):
    name: str
    version: str
    manifest_digest: str
    artifact_digest: str
    artifact_size_bytes: int
    published_at: float
    training_run_id: int | None
    devices: int = Field(description="devices that run it as a slot's champion")


class VersionDetail(VersionSummary):
    manifest: Manifest


class ModelSummary(Document):
    name: str
    versions: int
    latest: str
    published_at: float
    devices: int


class ModelDetail(ModelSummary):
    items: list[VersionSummary]


class PublishedVersion(VersionDetail):
    created: bool = Field(description="false: the same was published before")


class QuarantineRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(max_length=TEXT_MAX_CHARS)] = Field(
        description="why nothing is rolled out to it; empty: it is let out again"
    )


class SlotDocument(Document):
    slot: str
    state: str
    champion: VersionRef | None
    previous: VersionRef | None
    candidate: VersionRef | None
    assigned: VersionRef | None
    refused: Refusal | None
    waiting: str
    attempts: int
    runner_alive: bool
    runner_restarts: int
    challenger: ChallengerReported | None = Field(description="in shadow, as it reported")
    updated_at: float | None


class DeviceSummary(Document):
    id: str
    online: bool
    quarantine: str = Field(description="why it is in quarantine; empty: it is not")
    labels: dict[str, str] = Field(description="the effective ones")
    first_seen_at: float
    last_seen_at: float
    revision_desired: int
    revision_seen: int
    bytes_up: int
    slots: list[SlotDocument]


class TelemetryDocument(Document):
    """Records 1 to `through` of one boot: each is stored, part of another window (`merged`), or
    among the `lost` ones."""

    epoch: str
    through: int
    lost: int
    duplicates: int
    merged: int = 0
    sketches_shed: int = 0
    samples_dropped: int = 0
    events_dropped: int = 0


class DeviceDetail(DeviceSummary):
    epoch: str
    labels_agent: dict[str, str]
    labels_set: dict[str, str]
    inventory: Inventory
    telemetry: list[TelemetryDocument]


class DiagnosisRequest(Document):
    asks: Ask
    slot: Name | None = None
    lines: Annotated[int, Field(ge=1, le=REQUEST_LINES_MAX)] = 200
    examples: Annotated[int, Field(ge=1, le=CAPTURE_EXAMPLES_MAX)] = 20
    timeout_s: Annotated[float, Field(gt=0, le=DIAGNOSIS_TIMEOUT_S_MAX)] = (
        DIAGNOSIS_TIMEOUT_S_DEFAULT
    )


class DiagnosisDocument(Document):
    device: str
    asks: Ask
    slot: str | None
    done: bool = Field(description="whether the device did what was asked; if not, text says why")
    text: str


class LabelsPatch(BaseModel):
    """Null removes what was set here, so that the agent's own label counts again."""

    model_config = ConfigDict(extra="forbid")
    labels: Annotated[dict[str, str | None], Field(min_length=1, max_length=64)]


class EventDocument(Document):
    id: int
    at: float
    kind: str
    subject: str
    data: dict[str, Any]
    device_id: str | None
