"""The scenario file of a virtual world, as people write it: one pydantic model for each table.

Invariants: nothing here reads a file or knows of another table (`scenario_references` does);
unknown keys are errors; the JSON Schema in docs/spec/schemas is made from these models.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from edgeloop_controller.core.drift import Cause, Scope
from edgeloop_controller.core.rollout import RolloutStatus, RolloutTerms
from edgeloop_controller.core.selector import parse
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.errors import SelectorError, WaveError
from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import Name
from edgeloop_simulators.datasets.generator import GeneratorData
from edgeloop_simulators.scenario import TabularData, WatchData
from edgeloop_simulators.virtual.scenario.values import Duration, Hours, Share, Size
from edgeloop_simulators.virtual.spec.faults import FaultKind, Rates

DEVICES_MAX: Final = 20_000
"""Of one world; more have not been tried."""

VersionName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*@[A-Za-z0-9][A-Za-z0-9_.+-]*$")
]
"""`name@version`."""

EVERY_DEVICE: Final = "*"


def _grows(waves: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_waves(",".join(waves))
    except WaveError as error:
        raise ValueError(f"{error}") from error
    return waves


def _selects(selector: str) -> str:
    try:
        parse(selector)
    except SelectorError as error:
        raise ValueError(f"{error}") from error
    return selector


Waves = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_grows)]
Selector = Annotated[str, AfterValidator(_selects)]


# ---- the fleet ----------------------------------------------------------------------------------


class LinkTable(Config):
    """To broker and artifact server. `loss`: of messages, and of downloads cut short."""

    latency: Duration = 0.05
    jitter: Duration = 0.02
    bytes_per_s: PositiveFloat = 1_000_000.0
    loss: Share = 0.0


LINKS: Final[dict[str, LinkTable]] = {
    "ethernet": LinkTable(latency=0.01, jitter=0.002, bytes_per_s=10_000_000.0),
    "wifi": LinkTable(),
    "lte": LinkTable(latency=0.08, jitter=0.05, bytes_per_s=500_000.0, loss=0.005),
    "2g": LinkTable(latency=0.6, jitter=0.4, bytes_per_s=4_000.0, loss=0.03),
    "satellite": LinkTable(latency=0.7, jitter=0.1, bytes_per_s=30_000.0, loss=0.02),
}


def _named_link(given: Any) -> Any:
    if isinstance(given, str):
        if given not in LINKS:
            raise ValueError(f"unknown link; known: {', '.join(LINKS)}, or a table")
        return LINKS[given]
    return given


class ClassTable(Config):
    """A kind of device. `cpu_speed` divides what loading and inference take; outside `connected`
    its radio is off, outside `powered` it is switched off; neither given: always."""

    name: Name
    architecture: str = "x86_64"
    cpu_speed: PositiveFloat = 1.0
    memory: Size = 1 << 30
    disk: Size = 1 << 26
    link: Annotated[
        LinkTable, BeforeValidator(_named_link, json_schema_input_type=str | LinkTable)
    ] = LINKS["wifi"]
    connected: tuple[Hours, ...] = ()
    powered: tuple[Hours, ...] = ()


class SiteTable(Config):
    """Devices `NAME-1`, `NAME-2`, … in one place. Each gets the label `site`, and `labels`."""

    name: Name
    devices: PositiveInt = Field(le=DEVICES_MAX)
    device_class: Name = Field(default="standard", alias="class")
    utc_offset_h: float = Field(default=0.0, ge=-14, le=14)
    labels: dict[Name, str] = Field(default_factory=dict)


# ---- what the devices see, and what answers -----------------------------------------------------

Shift = Annotated[float, Field(ge=-1, le=1)]


class SyntheticData(Config):
    """Made-up sensors, for synthetic models. In the phase `before` each reading is spread evenly
    over its ten bins; a phase shifts a sensor's readings: 1 as far up, -1 as far down as goes."""

    kind: Literal["synthetic"]
    sensors: tuple[Name, ...] = Field(default=("temperature", "humidity", "light"), min_length=2)
    labels: PositiveInt = Field(default=4, ge=2, description="how many answers there are")
    phases: dict[Name, dict[Name, Shift]] = Field(default_factory=dict)


class MachinesData(GeneratorData):
    """Made-up recordings of machines in winter (`before`) and summer (`after`): for real models."""

    kind: Literal["machines"]


class DriftTable(Config):
    """The world changes for `target` to `phase`, within `over` (0: at once)."""

    at: Duration
    phase: Name
    called: str = Field(default="", description="what the phase is, for people")
    target: str = EVERY_DEVICE
    over: Duration = 0.0


class BrokenSensorTable(Config):
    """From `at` on, `sensor` of one device shows nothing; with `swapped_with`, each of the two
    shows what the other should: they are miswired."""

    at: Duration
    device: str
    sensor: Name
    swapped_with: Name | None = None


Goes = Literal["crash", "hang", "nan", "slow", "wrong", "self_test"]


class SyntheticTable(Config):
    """A version of a few numbers, on generated data. `goes`: how it is bad; `goes_on`: on which
    architectures only (crash and self_test), none: on all."""

    kind: Literal["synthetic"]
    name: VersionName
    accuracy: Share = 0.9
    accuracy_in: dict[Name, Share] = Field(default_factory=dict, description="in other phases")
    agrees: Share = Field(default=0.95, description="with the version that it replaces")
    latency: Duration = Field(default=0.003, description="of one inference, at the 95th percentile")
    memory: Size = 40 << 20
    load: Duration = 0.5
    size: Size = Field(default=200_000, gt=0, description="of the file that devices download")
    architectures: tuple[str, ...] = Field(default=(), description="that it is for; none: all")
    goes: Goes | None = None
    goes_on: tuple[str, ...] = ()
    goes_after: NonNegativeInt = Field(default=25, description="examples, for crash and hang")


class OnnxTable(Config):
    """A real model: answers are what onnxruntime gives for the recordings. `manifest`: the
    model.toml beside it; `baseline`: Parquet, as for publishing. `bad`: it is known to be."""

    kind: Literal["onnx"]
    name: VersionName
    file: Path
    manifest: Path | None = None
    baseline: Path | None = None
    latency: Duration = 0.0003
    memory: Size = 64 << 20
    load: Duration = 1.0
    bad: bool = False


class TrainedTable(Config):
    """A model trained on the data by a script, as `edgeloop_simulators.first_version` runs it;
    watch and machines have one of their own. The first is `NAME@1`; a further one is the first with
    `spoilt` done to it, and named `NAME@2` and so on, in the file's order."""

    kind: Literal["trained"]
    name: VersionName
    script: Path | None = None
    spoilt: Literal["permuted", "nan", "blind"] | None = None


class FunctionTable(Config):
    """A Python function, for tests: it stands in no file."""

    kind: Literal["function"]
    name: VersionName
    function: Callable[..., Any]
    bad: bool = False


ModelTable = Annotated[SyntheticTable | OnnxTable | TrainedTable, Field(discriminator="kind")]


class RetrainingTable(Config):
    """The controller's own retraining, by the script of the trained model. `policy`: keys of a
    policy file; `labelled`: the share of the samples that an annotator labels, `label_delay` late;
    `takes`: how long a run lasts."""

    policy: dict[str, Any] = Field(default_factory=dict)
    labelled: Share = 0.65
    label_delay: Duration = 3600.0
    takes: Duration = 600.0


# ---- what is done -------------------------------------------------------------------------------


class RollOutStep(Config):
    """Published just before, unless it was; `terms` as POST /v1/rollouts takes them."""

    do: Literal["roll_out"]
    at: Duration = 0.0
    model: VersionName
    selector: Selector = "all"
    waves: Waves = ("1", "50%", "100%")
    terms: RolloutTerms = RolloutTerms()


class OperatorStep(Config):
    """On the rollouts that are under way."""

    do: Literal["pause", "resume", "abort"]
    at: Duration


class LabelStep(Config):
    do: Literal["label"]
    at: Duration
    device: str
    labels: dict[Name, str]


class FaultTable(Config):
    """`target`: `*`, a device, `site:NAME`, `class:NAME`, `broker`, `controller`; what `amount` is
    stands in ADR 0009. A fault of a model names it in `model`."""

    kind: FaultKind
    at: Duration = 0.0
    duration: Duration = 0.0
    target: str | None = None
    amount: float = Field(default=0.0, ge=0)
    model: VersionName | None = None


class AgentTable(Config):
    """How often devices speak: the sparser, the cheaper the world."""

    window: Duration = Field(default=300.0, gt=0)
    progress: Duration = Field(default=30.0, gt=0)
    examples_per_s: PositiveFloat = 1.0
    outbox: Size = 1 << 20
    sample: Share = 0.0


class ControllerTable(Config):
    """`drift`, `retrain`: how often it looks for it; no `drift`: never."""

    tick: Duration = Field(default=30.0, gt=0)
    ingest: Duration = Field(default=1.0, gt=0)
    drift: Annotated[Duration, Field(gt=0)] | None = None
    retrain: Duration = Field(default=60.0, gt=0)
    offline_after: Annotated[Duration, Field(gt=0)] | None = None


# ---- what is expected ---------------------------------------------------------------------------


class ExpectRollout(Config):
    """Of the last rollout of `model`. Shares are of the devices that its selector matches."""

    model: VersionName
    status: RolloutStatus | None = None
    verdict_says: str | None = Field(default=None, description="a part of the verdict")
    exposed_share_max: Share | None = Field(default=None, description="that ever ran it")
    exposed_devices_max: NonNegativeInt | None = None
    rolled_back_devices: NonNegativeInt | None = None
    rolled_back_devices_min: NonNegativeInt | None = None
    time_to_95_percent_max: Duration | None = None
    ends_within: Duration | None = None


class ExpectChampion(Config):
    """What a share of the target's devices run at the end."""

    model: VersionName
    target: str = EVERY_DEVICE
    share_min: Share = 1.0


class ExpectDrift(Config):
    """One alarm at least of this kind, raised between `after` and `before`."""

    cause: Cause
    scope: Scope | None = None
    key: str | None = Field(default=None, description="`*`, `label=value` or a device")
    sensor: str | None = None
    after: Duration = 0.0
    before: Duration | None = None


class ExpectAccuracy(Config):
    """The share of right answers of the target's devices, of those given in [after, before)."""

    target: str = EVERY_DEVICE
    after: Duration = 0.0
    before: Duration | None = None
    min: Share | None = None
    max: Share | None = None


class ExpectTable(Config):
    """That every invariant holds is always expected; the rest where it is given."""

    converged: bool | None = True
    wedged_devices_max: NonNegativeInt | None = 0
    telemetry_lost_max: NonNegativeInt | None = 0
    telemetry_duplicated_max: NonNegativeInt | None = 0
    false_rollbacks_max: NonNegativeInt | None = None
    drift_alarms_max: NonNegativeInt | None = None
    bytes_up_per_device_day_max: Size | None = None
    rollouts: tuple[ExpectRollout, ...] = ()
    champions: tuple[ExpectChampion, ...] = ()
    drift: tuple[ExpectDrift, ...] = ()
    accuracy: tuple[ExpectAccuracy, ...] = ()


class VirtualScenario(Config):
    """The whole file."""

    world: Literal["virtual"]
    title: str = Field(min_length=1, max_length=100)
    shows: str = Field(default="", description="what is to be seen, in a sentence or two")
    seed: NonNegativeInt = 0
    duration: Duration = Field(gt=0)
    faults_end: Duration | None = Field(
        default=None, description="until when fault_rates draw; none: 80% of the duration"
    )
    joins_over: Duration = 5.0
    broker: str = "ideal"
    classes: tuple[ClassTable, ...] = ()
    sites: tuple[SiteTable, ...] = Field(min_length=1)
    data: Annotated[
        SyntheticData | MachinesData | WatchData | TabularData, Field(discriminator="kind")
    ] = SyntheticData(kind="synthetic")
    drift: tuple[DriftTable, ...] = ()
    broken_sensors: tuple[BrokenSensorTable, ...] = ()
    models: tuple[ModelTable, ...] = Field(min_length=1)
    steps: tuple[
        Annotated[RollOutStep | OperatorStep | LabelStep, Field(discriminator="do")], ...
    ] = Field(min_length=1)
    faults: tuple[FaultTable, ...] = ()
    fault_rates: Rates = Field(default_factory=dict)
    retraining: RetrainingTable | None = None
    agent: AgentTable = AgentTable()
    controller: ControllerTable = ControllerTable()
    expect: ExpectTable = ExpectTable()
