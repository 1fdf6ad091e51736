"""The controller's tables: the truth of the fleet (DESIGN §3). Alembic's migrations build the same.

Invariants: telemetry rows are unique by (device, epoch, sequence); a version's row never changes;
times are seconds since 1970 by the *controller's* clock unless the column says `device_`.
JSON columns hold the wire messages' own documents.
"""

from typing import Any, cast

from sqlalchemy import (
    JSON,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


def table_of(rows: type[Base]) -> Table:
    """For statements over many rows, which the unit of work would make one by one."""
    return cast(Table, rows.__table__)


class Version(Base):
    """A published model version; immutable."""

    __tablename__ = "versions"
    __table_args__ = (Unique("name", "version"),)

    manifest_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str]
    version: Mapped[str]
    artifact_digest: Mapped[str] = mapped_column(String(64))
    artifact_size_bytes: Mapped[int]
    manifest_size_bytes: Mapped[int]
    published_at: Mapped[float]
    training_run_id: Mapped[int | None]
    """No foreign key: versions, alarms and runs would otherwise need each other to exist first."""


class Device(Base):
    """A device as it last described itself, and the last desired state made for it."""

    __tablename__ = "devices"
    __table_args__ = (
        # What is said again at every tick must not cost a scan of the fleet.
        Index(
            "ix_devices_behind",
            "id",
            sqlite_where=text("revision_seen <> desired_revision"),
            postgresql_where=text("revision_seen <> desired_revision"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    first_seen_at: Mapped[float]
    last_seen_at: Mapped[float]
    online: Mapped[bool]
    epoch: Mapped[str] = mapped_column(String(16))
    state_sequence: Mapped[int]
    revision_seen: Mapped[int]
    desired_revision: Mapped[int] = mapped_column(default=0)
    desired: Mapped[list[Any]] = mapped_column(default=list)
    """The `slots` of the Desired message that carried `desired_revision`."""
    agent_labels: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    """Labels set at the controller; they win over the agent's own."""
    inventory: Mapped[dict[str, Any]]
    bytes_up: Mapped[int] = mapped_column(default=0)
    """MQTT payload and topic bytes received from the device."""
    quarantine: Mapped[str] = mapped_column(Text, default="")
    """Why nothing is rolled out to it; empty: it is in no quarantine."""
    change: Mapped[int] = mapped_column(default=0, index=True)
    """Grows when something changes that decisions are taken by (store.devices)."""


class DeviceSlot(Base):
    """The last reported state of one slot: `reported` is the SlotReported document."""

    __tablename__ = "device_slots"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    champion_digest: Mapped[str | None] = mapped_column(String(64))
    reported: Mapped[dict[str, Any]]
    updated_at: Mapped[float]


class Assignment(Base):
    """What one slot of one device shall run: the source of its desired state."""

    __tablename__ = "assignments"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    manifest_digest: Mapped[str | None] = mapped_column(ForeignKey("versions.manifest_digest"))
    rollout_id: Mapped[int | None] = mapped_column(ForeignKey("rollouts.id"))
    probation: Mapped[dict[str, Any]]
    reason: Mapped[str]


class Challenger(Base):
    """A version that runs in shadow beside the champions of a slot, until `ended_at`."""

    __tablename__ = "challengers"

    id: Mapped[int] = mapped_column(primary_key=True)
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("versions.manifest_digest"))
    slot: Mapped[str]
    selector: Mapped[str]
    budget: Mapped[dict[str, Any]]
    """The ShadowBudget document."""
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    rollout_id: Mapped[int | None] = mapped_column(default=None)
    """Of the rollout whose shadow phase it is: which devices have it is the engine's to say, not
    the selector's. No foreign key: SQLite adds none to a table that there is."""


class ChallengerAssignment(Base):
    """The challenger of one slot of one device: with Assignment the source of its desired state."""

    __tablename__ = "challenger_assignments"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    slot: Mapped[str] = mapped_column(primary_key=True)
    challenger_id: Mapped[int] = mapped_column(ForeignKey("challengers.id"))


class Rollout(Base):
    __tablename__ = "rollouts"

    id: Mapped[int] = mapped_column(primary_key=True)
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("versions.manifest_digest"))
    slot: Mapped[str]
    selector: Mapped[str]
    waves: Mapped[list[Any]]
    """As written: ["1", "25%", "100%"]."""
    terms: Mapped[dict[str, Any]]
    """The RolloutTerms document: soak, deadline, gates, probation."""
    status: Mapped[str]
    wave: Mapped[int]
    wave_started_at: Mapped[float | None]
    started_at: Mapped[float]
    started_by: Mapped[str] = mapped_column(default="")
    """Who has proved to be; empty: a machine, or who did not have to say."""
    ended_at: Mapped[float | None]
    verdict: Mapped[str] = mapped_column(Text, default="")
    training_run_id: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"))
    approvals: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Wave, from 1 → by whom and when it was approved; 0: the shadow phase."""
    shadow: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How its shadow phase stands (store.shadow_phases); empty: none has begun."""
    change: Mapped[int] = mapped_column(default=0)
    """Grows whenever the rollout or its members are written."""


class RolloutMember(Base):
    __tablename__ = "rollout_members"
    __table_args__ = (
        Index(
            "ix_rollout_members_offered",
            "rollout_id",
            "device_id",
            sqlite_where=text("phase = 'offered'"),
            postgresql_where=text("phase = 'offered'"),
        ),
    )

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    wave: Mapped[int]
    phase: Mapped[str]
    offered_at: Mapped[float | None]
    settled_at: Mapped[float | None]
    before_digest: Mapped[str | None] = mapped_column(String(64))
    cause: Mapped[str] = mapped_column(default="")


class RolloutVerdict(Base):
    """What one gate of a rollout said last; `evidence` holds the figures that its sentence says."""

    __tablename__ = "rollout_verdicts"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    gate: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[float]
    """When it came to say so."""
    wave: Mapped[int]
    """From 0; -1: the shadow phase."""
    halted: Mapped[bool]
    sentence: Mapped[str] = mapped_column(Text)
    looked: Mapped[int]
    evidence: Mapped[dict[str, Any]]


class TelemetryCursor(Base):
    """How far each (device, epoch) is committed; moves in the transaction that stores the rows."""

    __tablename__ = "telemetry_cursors"

    device_id: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[str] = mapped_column(String(16), primary_key=True)
    through: Mapped[int]
    lost: Mapped[int] = mapped_column(default=0)
    """Records that the device's outbox dropped by its bound, as its batches showed."""
    duplicates: Mapped[int] = mapped_column(default=0)
    """Records that came again and were ignored."""
    merged: Mapped[int] = mapped_column(default=0)
    """Windows that came as part of others: neither stored by themselves nor lost."""
    sketches_shed: Mapped[int] = mapped_column(default=0)
    samples_dropped: Mapped[int] = mapped_column(default=0)
    events_dropped: Mapped[int] = mapped_column(default=0)
    """As the device says; the latter two are among the lost."""


class Window(Base):
    """A WindowSummary. `body` is the message without its sketches, which stand in `sketches`."""

    __tablename__ = "windows"
    __table_args__ = (
        Unique("device_id", "epoch", "sequence"),
        Index("ix_windows_version", "manifest_digest", "slot", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    epoch: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int]
    received_at: Mapped[float]
    slot: Mapped[str]
    manifest_digest: Mapped[str] = mapped_column(String(64))
    device_started_at: Mapped[float]
    device_ended_at: Mapped[float]
    count: Mapped[int]
    errors: Mapped[int]
    nonfinite: Mapped[int]
    latency_p50_us: Mapped[float]
    latency_p95_us: Mapped[float]
    memory_bytes: Mapped[int]
    compared: Mapped[int] = mapped_column(default=0)
    disagreements: Mapped[int] = mapped_column(default=0)
    body: Mapped[dict[str, Any]]
    sketches: Mapped[dict[str, Any] | None]


class ShadowWindow(Base):
    """A ShadowSummary; `body` is the message. `span_s` is how long the window lasted."""

    __tablename__ = "shadow_windows"
    __table_args__ = (
        Unique("device_id", "epoch", "sequence"),
        Index("ix_shadow_windows_version", "manifest_digest", "slot", "received_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    epoch: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int]
    received_at: Mapped[float]
    slot: Mapped[str]
    manifest_digest: Mapped[str] = mapped_column(String(64))
    champion_digest: Mapped[str] = mapped_column(String(64))
    count: Mapped[int]
    errors: Mapped[int]
    nonfinite: Mapped[int]
    disagreements: Mapped[int]
    skipped: Mapped[int]
    cpu_s: Mapped[float]
    span_s: Mapped[float]
    latency_p95_us: Mapped[float]
    memory_bytes: Mapped[int]
    body: Mapped[dict[str, Any]]


class Sample(Base):
    """A sampled example: `features` is float32 little-endian."""

    __tablename__ = "samples"
    __table_args__ = (
        Unique("device_id", "epoch", "sequence"),
        Index("ix_samples_version_received", "manifest_digest", "received_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    epoch: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int]
    received_at: Mapped[float]
    slot: Mapped[str]
    manifest_digest: Mapped[str] = mapped_column(String(64))
    device_taken_at: Mapped[float]
    reference: Mapped[str]
    features: Mapped[bytes] = mapped_column(LargeBinary)
    prediction: Mapped[int]
    confidence: Mapped[float]
    shadow_digest: Mapped[str | None] = mapped_column(String(64))
    shadow_prediction: Mapped[int | None]


class Label(Base):
    """The true label of a sample, as an annotator gave it; the last one given counts."""

    __tablename__ = "labels"

    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    label: Mapped[str]
    labelled_at: Mapped[float]
    annotator: Mapped[str]
    change: Mapped[int] = mapped_column(default=0, index=True)
    """Grows with each label that is given."""


class Event(Base):
    """The append-only log that `edgeloop events` shows; device events carry their numbers."""

    __tablename__ = "events"
    __table_args__ = (Unique("device_id", "epoch", "sequence"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(index=True)
    """`<noun>.<past participle>`: rollout.halted, drift.raised, device.rolled_back …"""
    subject: Mapped[str] = mapped_column(index=True)
    data: Mapped[dict[str, Any]]
    device_id: Mapped[str | None]
    epoch: Mapped[str | None] = mapped_column(String(16))
    sequence: Mapped[int | None] = mapped_column(Integer)


class DriftAlarm(Base):
    __tablename__ = "drift_alarms"

    id: Mapped[int] = mapped_column(primary_key=True)
    slot: Mapped[str]
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("versions.manifest_digest"))
    scope: Mapped[str]
    """fleet, label or device."""
    key: Mapped[str]
    """`*` for the fleet, `name=value` for a label, the device id for a device."""
    cause: Mapped[str]
    """world_changed, sensor_fault or device_differs."""
    sensor: Mapped[str | None]
    score: Mapped[float]
    threshold: Mapped[float]
    raised_at: Mapped[float]
    cleared_at: Mapped[float | None] = mapped_column(Float)
    evidence: Mapped[dict[str, Any]]


class TrainingRun(Base):
    __tablename__ = "training_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    policy: Mapped[str]
    status: Mapped[str]
    trigger: Mapped[str]
    """drift, schedule, labels or manual."""
    drift_alarm_id: Mapped[int | None] = mapped_column(ForeignKey("drift_alarms.id"))
    parent_digest: Mapped[str] = mapped_column(String(64))
    candidate_digest: Mapped[str | None] = mapped_column(String(64))
    requested_at: Mapped[float]
    attempts: Mapped[int] = mapped_column(default=0)
    """How often it was started: a stop of the controller interrupts an attempt, not the run."""
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    directory: Mapped[str]
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Data window, row counts, devices, evaluation: what lineage shows."""
    error: Mapped[str] = mapped_column(Text, default="")


class ArtifactPatch(Base):
    """A way from one artifact to another; made once for each pair (services.patches)."""

    __tablename__ = "artifact_patches"

    base_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    artifact_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    format: Mapped[str] = mapped_column(primary_key=True)
    """Empty: the pair was looked at; each patch that it is worth has a row beside."""
    digest: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int]
    made_at: Mapped[float]


class RetrainingPolicy(Base):
    """One that was given over the API (services.policies)."""

    __tablename__ = "retraining_policies"

    name: Mapped[str] = mapped_column(primary_key=True)
    terms: Mapped[dict[str, Any]]
    """`core.retraining.PolicyTerms`, paths as they were given."""
    changed_at: Mapped[float]


class AuditEntry(Base):
    """One request that was to change something (store.audit). Append-only by triggers, which a
    migration that rebuilds the table must make again."""

    __tablename__ = "audit_log"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column(index=True)
    request: Mapped[str] = mapped_column(String(16))
    """Two rows of one request: the change was made, and what followed failed."""
    actor: Mapped[str]
    authenticated: Mapped[bool]
    address: Mapped[str]
    """Of the peer: of a proxy, where there is one."""
    forwarded_for: Mapped[str]
    """As a proxy, or anybody, claims."""
    method: Mapped[str]
    path: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    """`rollout:4`, `device:watch-3`, `version:watch@2` …"""
    essence: Mapped[dict[str, Any]]
    """The request's body, shortened."""
    created: Mapped[str]
    outcome: Mapped[str]
    """done, refused or failed."""
    status: Mapped[int | None]
    detail: Mapped[str]
    passed_over: Mapped[int]
    """Refused requests since the entry before that have none, for there were too many."""
    chain: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the entry before and of this one (store.audit); None: older than the chain."""


class ApiToken(Base):
    """Who may ask (services.people). The token itself is not kept."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256, in hexadecimal."""
    roles: Mapped[list[Any]]
    created_at: Mapped[float]
    created_by: Mapped[str]
    ends_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class WebhookCursor(Base):
    """How far the events are settled with one webhook: delivered, given up, or not its kind."""

    __tablename__ = "webhook_cursors"

    name: Mapped[str] = mapped_column(primary_key=True)
    through: Mapped[int]
    """The id of the last event that is settled."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Of the event that is next, all failed."""
    failing_since: Mapped[float | None]
    error: Mapped[str] = mapped_column(default="")
    """Of the last attempt; empty: it succeeded."""
    delivered: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[float | None]
    given_up: Mapped[int] = mapped_column(default=0)
