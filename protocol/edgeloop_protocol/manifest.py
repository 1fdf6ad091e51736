"""The model manifest: everything about a version but its weights.

Invariants: frozen; canonical JSON is its only stored form, and the SHA-256 of that is the
version's identity (`manifest_digest`); the manifest names the artifact by digest, so one digest
fixes both. TOML is the form that people write (`ManifestDraft`), with what they leave out filled
in from the model file at publishing.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from edgeloop_protocol.documents import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from edgeloop_protocol.errors import ManifestError, first_problem
from edgeloop_protocol.limits import (
    ARTIFACT_MAX_BYTES,
    FEATURES_MAX,
    GOLDEN_EXAMPLES_MAX,
    HISTOGRAM_BINS_MAX,
    LABELS_MAX,
    MANIFEST_MAX_BYTES,
    NAME_MAX_CHARS,
    SENSORS_MAX,
)
from edgeloop_protocol.messages import Digest, Name, Text, VersionRef

MANIFEST_VERSION: Final = 1

Statistic = Literal["mean", "std", "min", "max", "mean_abs_diff", "rms", "median", "range"]
DType = Literal[
    "float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "string"
]
FeatureName = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]


class Strict(BaseModel):
    """Unknown keys are errors: a manifest is written once and read by many."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WithLaterKeys(Strict):
    """Keys that came after the first manifests are written only where they say something.

    So the canonical bytes, and with them the identity, of every earlier manifest stay what they
    were, and an agent that does not know such a key still reads the manifests that lack it.
    """

    later_keys: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialise(self)
        for key in self.later_keys:
            if getattr(self, key) == type(self).model_fields[key].default:
                document.pop(key, None)
        return document


class Quantisation(Strict):
    """A tensor's whole numbers q stand for the real ones `(q - zero_point) * scale`."""

    scale: float = Field(gt=0)
    zero_point: int


class TensorSpec(WithLaterKeys):
    """An input or output; a None dimension is free (the batch)."""

    later_keys: ClassVar[tuple[str, ...]] = ("quantisation",)

    name: str
    dtype: DType
    shape: tuple[int | None, ...]
    quantisation: Quantisation | None = None


class Feed(Strict):
    """What one input of a model with several is given; exactly one of the three.

    `features`: these, in this order. `state_of`: what that output gave for the example before;
    zeros for the first. `constant`: this number, everywhere.
    """

    input: str
    features: tuple[FeatureName, ...] = Field(default=(), max_length=FEATURES_MAX)
    state_of: str | None = None
    constant: float | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = (bool(self.features), self.state_of is not None, self.constant is not None)
        if sum(said) != 1:
            raise ValueError(
                f"the feed of {self.input!r} needs one of features, state_of and constant"
            )
        return self


class Artifact(Strict):
    digest: Digest
    size_bytes: Annotated[int, Field(gt=0, le=ARTIFACT_MAX_BYTES)]
    runtime: Name = Field(default="onnx", description="an entry point of edgeloop.runtimes")
    opset: int | None = None
    ir_version: int | None = None
    operators: tuple[str, ...] = ()


class Preprocessing(Strict):
    """How an example from the source becomes the feature vector.

    `none`: the example is the vector. `window_statistics`: the example is (rows, channels); each
    statistic of each channel is one feature, statistic-major, as `preprocessing.features` does it.
    """

    kind: Literal["none", "window_statistics"] = "none"
    rows: Annotated[int, Field(gt=1)] | None = None
    channels: tuple[FeatureName, ...] = ()
    statistics: tuple[Statistic, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        windowed = self.kind == "window_statistics"
        if windowed and not (self.rows and self.channels and self.statistics):
            raise ValueError("window_statistics needs rows, channels and statistics")
        return self

    def feature_names(self) -> tuple[str, ...]:
        """`<channel>_<statistic>` in the order in which they are computed; empty for `none`."""
        return tuple(f"{channel}_{s}" for s in self.statistics for channel in self.channels)


class Feature(Strict):
    """One input feature; `sensor` groups the features that one physical sensor feeds."""

    name: FeatureName
    sensor: FeatureName


class Requirements(Strict):
    memory_bytes: int = Field(default=0, ge=0)
    disk_bytes: int = Field(default=0, ge=0)
    architectures: tuple[str, ...] = Field(default=(), description="empty: any")
    sensors: tuple[str, ...] = Field(
        default=(),
        max_length=SENSORS_MAX,
        exclude_if=lambda sensors: not sensors,
        description="what the device must declare to have",
    )


class Golden(Strict):
    """Inputs (feature vectors) with the outputs that a faithful runtime gives for them."""

    inputs: tuple[tuple[float, ...], ...] = Field(max_length=GOLDEN_EXAMPLES_MAX)
    outputs: tuple[tuple[float, ...], ...] = Field(max_length=GOLDEN_EXAMPLES_MAX)
    tolerance: float = Field(default=1e-3, gt=0, description="largest absolute difference")

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.inputs) != len(self.outputs):
            raise ValueError("golden inputs and outputs differ in number")
        return self


class Binned(Strict):
    """A baseline distribution: inner bin edges (ascending) and each bin's share; KLL as base64.

    `len(shares) == len(edges) + 1`; a value x lies in bin `searchsorted(edges, x, side="right")`.
    """

    edges: tuple[float, ...] = Field(max_length=HISTOGRAM_BINS_MAX - 1)
    shares: tuple[float, ...] = Field(max_length=HISTOGRAM_BINS_MAX)
    sketch: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError("a baseline needs one more share than edges")
        if list(self.edges) != sorted(self.edges):
            raise ValueError("baseline edges must ascend")
        return self


class DriftThresholds(Strict):
    """Scores above which a scope has drifted; calibrated on held-out groups, not a textbook's."""

    examples: int = Field(gt=0, description="how many examples a score is taken over")
    device: float = Field(gt=0)
    fleet: float = Field(gt=0)
    sensor: float = Field(gt=0)
    groups: int = Field(default=0, ge=0, description="held-out groups they were calibrated on")
    margin: float = Field(default=1.0, gt=0)


class Baseline(Strict):
    """What the version's inputs and answers looked like on its training data."""

    count: int = Field(gt=0)
    features: tuple[Binned, ...] = Field(max_length=FEATURES_MAX)
    confidence: Binned
    predictions: tuple[float, ...] = Field(max_length=LABELS_MAX)
    thresholds: DriftThresholds | None = None


class Evaluation(Strict):
    """How it did on held-back labelled examples, beside the version it would replace."""

    examples: int = Field(gt=0)
    accuracy: float = Field(ge=0, le=1)
    against: VersionRef | None = None
    against_accuracy: float | None = Field(default=None, ge=0, le=1)
    disagreement: float | None = Field(default=None, ge=0, le=1)


class Lineage(Strict):
    parent: VersionRef | None = None
    training_run: str | None = None
    note: Text = ""


class Manifest(WithLaterKeys):
    """A published version. Build with `ManifestDraft` and the publisher, not by hand."""

    later_keys: ClassVar[tuple[str, ...]] = ("feeds", "stateful")

    manifest_version: Literal[1] = MANIFEST_VERSION
    name: Name
    version: Name
    description: Text = ""
    artifact: Artifact
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    scores_output: str = Field(description="the output that holds one score per label")
    feeds: tuple[Feed, ...] = Field(
        default=(), description="one an input; empty: the only input takes all features"
    )
    stateful: bool = Field(
        default=False,
        description="an answer depends on the examples before it; golden inputs are one sequence",
    )
    preprocessing: Preprocessing = Preprocessing()
    features: tuple[Feature, ...] = Field(min_length=1, max_length=FEATURES_MAX)
    labels: tuple[FeatureName, ...] = Field(min_length=1, max_length=LABELS_MAX)
    requires: Requirements = Requirements()
    golden: Golden | None = None
    baseline: Baseline | None = None
    evaluation: Evaluation | None = None
    lineage: Lineage = Lineage()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.scores_output not in {o.name for o in self.outputs}:
            raise ValueError(f"scores_output {self.scores_output!r} is not among the outputs")
        derived = self.preprocessing.feature_names()
        if derived and derived != tuple(f.name for f in self.features):
            raise ValueError("features do not match what preprocessing computes")
        names = [feature.name for feature in self.features]
        check_feeds(self.feeds, self.inputs, self.outputs, tuple(names))
        if not self.stateful and any(feed.state_of is not None for feed in self.feeds):
            raise ValueError("a model that is fed its own state is stateful")
        for what, listed in (("labels", self.labels), ("features", names)):
            twice = sorted({name for name in listed if list(listed).count(name) > 1})
            if twice:
                raise ValueError(f"{what} name {', '.join(twice)} more than once")
        if self.baseline and len(self.baseline.features) != len(self.features):
            raise ValueError("baseline and features differ in number")
        return self

    def canonical(self) -> bytes:
        """The stored bytes: sorted keys, no spaces, UTF-8."""
        document = self.model_dump(mode="json")
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()

    def digest(self) -> str:
        return hashlib.sha256(self.canonical()).hexdigest()

    def ref(self) -> VersionRef:
        return VersionRef(name=self.name, version=self.version, manifest_digest=self.digest())


class ManifestDraft(Strict):
    """model.toml, as a person writes it; every key is optional and filled from the model file."""

    description: Text = ""
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    scores_output: str | None = None
    feeds: tuple[Feed, ...] = ()
    stateful: bool | None = None
    runtime: Name | None = None
    opset: int | None = None
    preprocessing: Preprocessing = Preprocessing()
    features: tuple[FeatureName, ...] | None = None
    sensors: dict[FeatureName, FeatureName] = Field(
        default_factory=dict, description="feature name to sensor name"
    )
    labels: tuple[FeatureName, ...] | None = None
    requires: Requirements = Requirements()
    golden: Golden | None = None
    note: Text = ""


def check_feeds(
    feeds: tuple[Feed, ...],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    features: tuple[str, ...],
) -> None:
    """Each input is fed once, each feature is used, state fits. Raises ValueError."""
    if not feeds:
        if len(inputs) > 1:
            raise ValueError(f"{len(inputs)} inputs need feeds that say what each is given")
        return
    by_name, given = {spec.name: spec for spec in outputs}, {spec.name: spec for spec in inputs}
    if sorted(feed.input for feed in feeds) != sorted(given):
        raise ValueError(f"feeds must name each input once: {', '.join(sorted(given))}")
    used = {name for feed in feeds for name in feed.features}
    if odd := sorted(used.symmetric_difference(features)):
        raise ValueError(f"feeds and features differ in {', '.join(odd[:5])}")
    for feed in feeds:
        if feed.state_of is None:
            continue
        source = by_name.get(feed.state_of)
        if source is None or (source.dtype, source.quantisation) != (
            given[feed.input].dtype,
            given[feed.input].quantisation,
        ):
            raise ValueError(f"{feed.input!r} cannot be fed {feed.state_of!r}: no such output")


def parse_manifest(document: bytes) -> Manifest:
    """Read a stored manifest; raises ManifestError naming the first wrong key."""
    if len(document) > MANIFEST_MAX_BYTES:
        raise ManifestError(
            f"the manifest is {len(document)} bytes; the limit is {MANIFEST_MAX_BYTES}"
        )
    try:
        return Manifest.model_validate_json(document)
    except ValidationError as error:
        raise ManifestError(f"manifest: {first_problem(error)}") from error
