"""The documents of drift, samples, retraining and lineage; see `documents.base`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.documents.base import ROW_ID_MAX, Document
from edgeloop_protocol.limits import NAME_MAX_CHARS
from edgeloop_protocol.messages import VersionRef


class FeatureScore(Document):
    name: str
    sensor: str
    psi: float
    ks: float | None


class ScopeScore(Document):
    """What one scope shows at the last look; `cause` null: nothing."""

    slot: str
    version: VersionRef | None
    at: float
    scope: Literal["fleet", "label", "device"]
    key: str
    score: float
    threshold: float
    examples: int
    cause: str | None
    sensor: str | None
    explanation: str
    predictions_psi: float
    confidence_psi: float
    features: list[FeatureScore]


class AlarmDocument(Document):
    id: int
    slot: str
    version: VersionRef | None
    scope: str
    key: str
    cause: str
    sensor: str | None
    score: float
    threshold: float
    raised_at: float
    cleared_at: float | None
    evidence: dict[str, Any]


class DriftDocument(Document):
    enabled: bool
    scores: list[ScopeScore]
    alarms: list[AlarmDocument] = Field(description="open and past ones, newest first")


class SampleDocument(Document):
    id: int
    device_id: str
    slot: str
    version: VersionRef | None
    reference: str
    received_at: float
    device_taken_at: float
    features: list[float | None]
    prediction: int
    predicted_label: str | None
    confidence: float
    shadow_version: VersionRef | None
    shadow_prediction: int | None
    label: str | None
    labelled_at: float | None


class LabelGiven(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sample_id: Annotated[int, Field(ge=-ROW_ID_MAX, le=ROW_ID_MAX)]
    label: Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]


class LabelsGiven(BaseModel):
    model_config = ConfigDict(extra="forbid")
    annotator: Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]
    labels: Annotated[list[LabelGiven], Field(min_length=1, max_length=1000)]


class LabelsStored(Document):
    stored: int


class RunDocument(Document):
    id: int
    policy: str
    status: str
    trigger: str
    drift_alarm_id: int | None
    parent: VersionRef | None
    candidate: VersionRef | None
    rollout_id: int | None
    requested_at: float
    started_at: float | None
    ended_at: float | None
    directory: str
    result: dict[str, Any]
    error: str


class PolicyDocument(Document):
    name: str
    model: str
    slot: str
    on: list[str]
    script: str
    origin: Literal["file", "api"]
    terms: dict[str, Any] = Field(description="all of it, as it was given, defaults filled in")
    champion: VersionRef | None
    labels_since_alarm: int
    labels_since_last_run: int
    says: str = Field(description="what it waits for, or why it would start now")


class PolicyRemoved(Document):
    name: str


class BadPolicy(Document):
    file: str = Field(description="or `policy NAME`, where it was given over the API")
    error: str


class PoliciesDocument(Document):
    items: list[PolicyDocument]
    errors: list[BadPolicy]


class LinkDocument(Document):
    kind: str
    text: str
    document: dict[str, Any]


class LineageDocument(Document):
    """`chain` is read backwards in time; `text` is the same for people."""

    chain: list[LinkDocument]
    text: str
