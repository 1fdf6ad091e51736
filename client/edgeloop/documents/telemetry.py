"""The document of telemetry windows; see `documents.base`."""

from pydantic import Field

from edgeloop.documents.base import Document
from edgeloop_protocol.messages import VersionRef


class WindowDocument(Document):
    """What one slot answered in one telemetry window, without its histograms and sketches."""

    id: int
    device_id: str
    slot: str
    version: VersionRef | None = Field(description="null: never published at this controller")
    received_at: float
    device_started_at: float
    device_ended_at: float
    windows: int = Field(description="how many are merged in this one")
    count: int = Field(description="examples")
    errors: int = Field(description="examples with no answer")
    nonfinite: int = Field(description="examples whose output had NaN or Inf")
    latency_p50_us: float
    latency_p95_us: float
    memory_bytes: int
    predictions: dict[str, int] = Field(description="label to how often it was answered")
    compared: int = Field(description="examples that the old version in shadow answered, too")
    disagreements: int = Field(description="of them, with another label")
