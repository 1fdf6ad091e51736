"""The MQTT messages, as pydantic models, with one encoder and one decoder.

Invariants: a decoder never raises anything but MessageError; what decodes re-encodes to the same
meaning; unknown keys are ignored (EL-MSG-3), so that an older part can talk to a newer one.
Times are seconds since 1970 by the *device's* clock and are evidence, never an order.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, Literal, Self, TypeVar

from edgeloop_protocol.documents import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from edgeloop_protocol.errors import MessageError, first_problem
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.limits import (
    BATCH_RECORDS_MAX,
    CAPTURE_EXAMPLES_MAX,
    DEVICE_ID_MAX_CHARS,
    FEATURES_MAX,
    HISTOGRAM_BINS_MAX,
    LABELS_MAX,
    NAME_MAX_CHARS,
    PATCH_FORMATS_MAX,
    PAYLOAD_MAX_BYTES,
    REFERENCE_MAX_CHARS,
    REQUEST_LINES_MAX,
    RESPONSE_PART_MAX_CHARS,
    RESPONSE_PARTS_MAX,
    SENSORS_MAX,
    SLOTS_MAX,
    TEXT_MAX_CHARS,
)

WIRE_VERSION: Final = 1
REFS_KEPT_MAX: Final = 64

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, lower-case hex")]
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_MAX_CHARS)]
Text = Annotated[str, Field(max_length=TEXT_MAX_CHARS)]
Count = Annotated[int, Field(ge=0)]
Epoch = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="one boot of one agent")]


class Wire(BaseModel):
    """Base of everything on the wire: frozen, unknown keys ignored, NaN and Inf refused.

    Of texts that are read only the keys go into pydantic's cache: versions, references and details
    are new each time, and would fill it with 1.5 MB.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, cache_strings="keys"
    )


def _is_none(value: object) -> bool:
    return value is None


def _is_one(value: object) -> bool:
    return value == 1


def _is_empty(value: Sequence[object]) -> bool:
    return not value


class VersionRef(Wire):
    """A model version by name and by content; `manifest_digest` is its identity."""

    name: Name
    version: Name
    manifest_digest: Digest

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Patch(Wire):
    """A shorter way to an artifact for who has the artifact of another version (EL-ART-4)."""

    format: Name
    base_manifest_digest: Digest
    base_artifact_digest: Digest
    digest: Digest = Field(description="of the patch itself, fetched like an artifact")
    size_bytes: Count


class Offer(VersionRef):
    """A version that a device shall run, and where its bytes are, by content address."""

    manifest_size_bytes: Count
    artifact_digest: Digest
    artifact_size_bytes: Count
    patch: Patch | None = Field(
        default=None, exclude_if=_is_none, description="a hint: the artifact can be had without"
    )

    @property
    def ref(self) -> VersionRef:
        return _ref(self.name, self.version, self.manifest_digest)


@lru_cache(maxsize=REFS_KEPT_MAX)
def _ref(name: str, version: str, manifest_digest: str) -> VersionRef:
    return VersionRef(name=name, version=version, manifest_digest=manifest_digest)


class Probation(Wire):
    """How a new version proves itself on the device before it is committed (DESIGN §4)."""

    min_s: float = Field(default=10.0, gt=0)
    min_examples: Count = 20
    max_s: float = Field(default=600.0, gt=0, description="rolled back if not proven by then")
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    max_latency_ratio: float = Field(default=5.0, gt=0, description="p95 against the old one's")
    compare: bool = Field(
        default=True,
        description="run the old version in shadow, in probation and after the commit "
        "for the agent's limits.shadow_after_commit_s",
    )


# ---- down: controller to device ---------------------------------------------------------------


class ShadowBudget(Wire):
    """What a challenger may take of its device (EL-SHADOW-3)."""

    cpu_fraction: float = Field(
        default=0.1, gt=0, le=1, description="of one core; beyond it examples are skipped"
    )
    memory_bytes: Count = Field(
        default=0, description="resident, of its process; 0: its manifest's requires.memory_bytes"
    )


class Challenger(Wire):
    """A version to run in shadow beside the champion (EL-SHADOW-1)."""

    offer: Offer
    budget: ShadowBudget = ShadowBudget()


class SlotDesired(Wire):
    """What one slot shall run; no offer means that it shall run nothing new."""

    slot: Name
    offer: Offer | None = None
    probation: Probation = Probation()
    reason: Text = ""
    challenger: Challenger | None = Field(default=None, exclude_if=_is_none)


class Desired(Wire):
    """All that a device shall run. `revision` only grows; older and equal ones change nothing.

    Always answered: with Hello where that is asked for, else with Reported (EL-STATE-5).
    """

    kind: Literal["desired"] = "desired"
    wire_version: int = WIRE_VERSION
    revision: Count
    slots: tuple[SlotDesired, ...] = Field(default=(), max_length=SLOTS_MAX)
    wants_hello: bool = Field(default=False, description="answer with Hello (EL-STATE-6)")


class Ack(Wire):
    """Telemetry of `epoch` up to and including `through` is committed at the controller."""

    kind: Literal["ack"] = "ack"
    epoch: Epoch
    through: Count


class Ask(StrEnum):
    """What may be asked of a device by a Request."""

    LOGS = "logs"
    STATUS = "status"
    CAPTURE = "capture"
    RESTART_RUNNER = "restart_runner"
    RENEW_CERTIFICATE = "renew_certificate"


class Said(Wire):
    """The last hello or reported that a device said: `sequence` in the boot `epoch`."""

    epoch: Epoch
    sequence: Count


RequestId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="drawn by the sender")]


class Request(Wire):
    """Asks something of a device, which answers with Response (EL-DIAG-1 … EL-DIAG-4).

    `asks` is an Ask, or a word of a newer controller, which is answered as not understood. `said`
    is what the sender last heard of the device, by which the device knows how fresh this is.
    """

    kind: Literal["request"] = "request"
    id: RequestId
    asks: Name
    said: Said
    slot: Name | None = None
    lines_max: Annotated[int, Field(ge=1, le=REQUEST_LINES_MAX)] = 200
    examples_max: Annotated[int, Field(ge=1, le=CAPTURE_EXAMPLES_MAX)] = 20


# ---- up: device to controller -----------------------------------------------------------------


class RuntimeInfo(Wire):
    name: Name
    version: Text
    max_opset: Count | None = None
    max_ir_version: Count | None = None


class Inventory(Wire):
    """What the device is: the controller checks a manifest against it before any offer."""

    agent_version: Text
    architecture: Text
    python: Text
    runtimes: tuple[RuntimeInfo, ...] = ()
    patch_formats: tuple[Name, ...] = Field(
        default=(),
        max_length=PATCH_FORMATS_MAX,
        exclude_if=_is_empty,
        description="what it can apply; none: it is offered no patches",
    )
    sensors: tuple[Name, ...] = Field(
        default=(),
        max_length=SENSORS_MAX,
        exclude_if=_is_empty,
        description="what the device is said to have, by its configuration",
    )
    memory_bytes: Count = Field(description="free for a new version")
    disk_free_bytes: Count
    cpu_count: Count
    memory_total_bytes: Count = Field(default=0, description="of the device; 0: not known")
    disk_total_bytes: Count = Field(
        default=0, description="what versions can ever take of the disk; 0: not known"
    )


class Refusal(Wire):
    """A version that this slot rolled back, and why; refused until another one is offered."""

    version: VersionRef
    cause: Text
    detail: Text = ""


class ChallengerReported(Wire):
    """How the challenger of a slot stands; `cause` and `detail` say why it was refused."""

    version: VersionRef
    state: ChallengeState
    attempts: Count = 0
    cause: Text = ""
    detail: Text = ""
    waiting: Text = ""


class SlotReported(Wire):
    slot: Name
    state: SlotState
    champion: VersionRef | None = None
    previous: VersionRef | None = None
    candidate: VersionRef | None = None
    attempts: Count = 0
    refused: Refusal | None = None
    waiting: Text = Field(
        default="", description="what is waited for: disk, journal, inventory, link, source"
    )
    runner_alive: bool = False
    runner_restarts: Count = 0
    challenger: ChallengerReported | None = Field(default=None, exclude_if=_is_none)


class Hello(Wire):
    """Said on every connect; answered with Desired when `revision` is behind."""

    kind: Literal["hello"] = "hello"
    wire_version: int = WIRE_VERSION
    device_id: str = Field(max_length=DEVICE_ID_MAX_CHARS)
    epoch: Epoch
    sequence: Count = Field(description="orders hello and reported messages within an epoch")
    revision: Count
    labels: dict[Name, Text] = Field(default_factory=dict, max_length=64)
    inventory: Inventory
    slots: tuple[SlotReported, ...] = Field(default=(), max_length=SLOTS_MAX)


class Reported(Wire):
    """The whole reported state: said when it changed, and in answer to every Desired."""

    kind: Literal["reported"] = "reported"
    epoch: Epoch
    sequence: Count
    revision: Count
    slots: tuple[SlotReported, ...] = Field(default=(), max_length=SLOTS_MAX)


class Presence(Wire):
    """The last will says online=False. A hint: the broker may have lost it."""

    kind: Literal["presence"] = "presence"
    epoch: Epoch
    online: bool


class Sketches(Wire):
    """Serialised KLL sketches (Apache DataSketches, floats), base64, mergeable."""

    count: Count
    features: tuple[str, ...] = Field(max_length=FEATURES_MAX)
    confidence: str


class Comparison(Wire):
    """The version in shadow against the one that answers, on the same examples."""

    shadow: VersionRef
    count: Count
    disagreements: Count

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.disagreements > self.count:
            raise ValueError("disagreements exceed count")
        return self


Histogram = Annotated[tuple[Count, ...], Field(max_length=HISTOGRAM_BINS_MAX)]


class WindowSummary(Wire):
    """What one slot saw and answered in one telemetry window; never the raw stream.

    `features` holds, for each feature, the counts over the manifest's baseline bins;
    `predictions` counts the labels answered; `errors` are examples with no answer (an exception,
    a wrong shape), `nonfinite` those whose output had NaN or Inf. A device whose outbox is full
    merges `windows` of them (EL-TEL-8): counts are then sums, p50 the mean weighted by `count`,
    p95 and memory the greatest, and there are no sketches.
    """

    kind: Literal["window"] = "window"
    slot: Name
    version: VersionRef
    windows: Annotated[int, Field(ge=1)] = Field(
        default=1, exclude_if=_is_one, description="how many are merged in this one"
    )
    started_at: float
    ended_at: float
    count: Count
    errors: Count = 0
    nonfinite: Count = 0
    latency_p50_us: float = Field(ge=0)
    latency_p95_us: float = Field(ge=0)
    memory_bytes: Count = 0
    predictions: tuple[Count, ...] = Field(default=(), max_length=LABELS_MAX)
    confidence: Histogram = ()
    features: tuple[Histogram, ...] = Field(default=(), max_length=FEATURES_MAX)
    sketches: Sketches | None = None
    comparison: Comparison | None = None


class ShadowSummary(Wire):
    """What a challenger answered in one telemetry window, beside the answers of `champion`.

    `window` is the challenger's, without sketches; `disagreements` of its `count` answers had
    another label than the champion's. `skipped` examples it never saw, because its budget was
    spent (EL-SHADOW-4).
    """

    kind: Literal["shadow"] = "shadow"
    champion: VersionRef
    window: WindowSummary
    disagreements: Count = 0
    skipped: Count = 0
    cpu_s: float = Field(default=0.0, ge=0, description="processor time of the window")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.disagreements > self.window.count:
            raise ValueError("disagreements exceed count")
        return self


class Sample(Wire):
    """One example, sampled for labelling; `reference` says where its raw data is.

    `prediction` and `shadow_prediction` both index the labels of `version`; the shadow's is absent
    where its label is not among them. A feature's value is null where the device keeps it private.
    """

    kind: Literal["sample"] = "sample"
    slot: Name
    version: VersionRef
    taken_at: float
    reference: str = Field(max_length=REFERENCE_MAX_CHARS)
    features: tuple[float | None, ...] = Field(max_length=FEATURES_MAX)
    prediction: Count
    confidence: float = Field(ge=0, le=1)
    shadow: VersionRef | None = None
    shadow_prediction: Count | None = None


class DeviceEvent(Wire):
    """Something that happened on the device and that a person may want to read."""

    kind: Literal["event"] = "event"
    at: float
    name: Name
    slot: Name | None = None
    version: VersionRef | None = None
    detail: Text = ""


RecordBody = Annotated[
    WindowSummary | ShadowSummary | Sample | DeviceEvent, Field(discriminator="kind")
]


class Record(Wire):
    """One outbox entry: numbered by (epoch of its batch, sequence), from 1, without holes."""

    sequence: Annotated[int, Field(ge=1)]
    body: RecordBody


class Reduced(Wire):
    """What a full outbox gave up of one epoch's records, until now. Merged windows say so
    themselves, and all numbers that are gone show in `base`."""

    sketches_shed: Count = 0
    samples_dropped: Count = 0
    events_dropped: Count = 0


class TelemetryBatch(Wire):
    """Consecutive records of one epoch.

    `base` is the lowest sequence that the outbox still holds for the epoch: what lies between the
    controller's cursor and `base` is gone by the outbox's bound: merged into a window that comes
    with a higher sequence, or lost. `said` lets the controller see that it missed a hello or a
    reported (EL-STATE-6).
    """

    kind: Literal["telemetry"] = "telemetry"
    epoch: Epoch
    said: Said | None = None
    base: Annotated[int, Field(ge=1)]
    reduced: Reduced | None = Field(default=None, exclude_if=_is_none)
    records: tuple[Record, ...] = Field(min_length=1, max_length=BATCH_RECORDS_MAX)

    @model_validator(mode="after")
    def _consecutive(self) -> Self:
        first = self.records[0].sequence
        if [r.sequence for r in self.records] != list(range(first, first + len(self.records))):
            raise ValueError("sequences of a batch must be consecutive")
        if self.base > first:
            raise ValueError("base lies above the first record")
        return self


class Response(Wire):
    """One part of the answer to a Request; `text` of all parts in order is the whole.

    `done` is whether what was asked for was done; if not, `text` says why.
    """

    kind: Literal["response"] = "response"
    id: RequestId
    done: bool
    part: Annotated[int, Field(ge=1, le=RESPONSE_PARTS_MAX)] = 1
    parts: Annotated[int, Field(ge=1, le=RESPONSE_PARTS_MAX)] = 1
    text: str = Field(max_length=RESPONSE_PART_MAX_CHARS)


UpMessage = Hello | Reported | TelemetryBatch | Presence | Response
DownMessage = Desired | Ack | Request

W = TypeVar("W", bound=BaseModel)


def encode(message: BaseModel) -> bytes:
    """Compact JSON; raises MessageError above PAYLOAD_MAX_BYTES (check *before* publishing)."""
    payload = message.model_dump_json(exclude_defaults=False).encode()
    _check_size(type(message).__name__, payload)
    return payload


def encode_telemetry(
    epoch: str,
    base: int,
    documents: Sequence[bytes],
    said: Said | None = None,
    reduced: Reduced | None = None,
) -> bytes:
    """A TelemetryBatch of bodies that are encoded already, the first one with sequence `base`:
    byte for byte what `encode` makes of it. Raises MessageError as that does."""
    records = b",".join(
        b'{"sequence":%d,"body":%b}' % (sequence, document)
        for sequence, document in enumerate(documents, base)
    )
    gone = b"" if reduced is None else b',"reduced":%b' % reduced.model_dump_json().encode()
    payload = b'{"kind":"telemetry","epoch":"%b","said":%b,"base":%d%b,"records":[%b]}' % (
        epoch.encode(),
        b"null" if said is None else said.model_dump_json().encode(),
        base,
        gone,
        records,
    )
    _check_size("TelemetryBatch", payload)
    return payload


def _check_size(name: str, payload: bytes) -> None:
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise MessageError(f"{name} is {len(payload)} bytes; the limit is {PAYLOAD_MAX_BYTES}")


def decode(message_type: type[W], payload: bytes) -> W:
    """Decode and validate; raises MessageError naming the first wrong key."""
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise MessageError(
            f"{message_type.__name__} of {len(payload)} bytes; the limit is {PAYLOAD_MAX_BYTES}"
        )
    try:
        return message_type.model_validate_json(payload)
    except ValidationError as error:
        raise MessageError(f"{message_type.__name__}: {first_problem(error)}") from error
    except RecursionError as error:  # a deeply nested document
        raise MessageError(f"{message_type.__name__}: nested too deeply") from error
