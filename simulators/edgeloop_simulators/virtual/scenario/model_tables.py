"""Tables of a scenario file for what devices see and what answers it: data, drift, models,
retraining.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import Name
from edgeloop_simulators.datasets.generator import GeneratorData
from edgeloop_simulators.virtual.scenario.values import (
    EVERY_DEVICE,
    Duration,
    Share,
    Size,
    VersionName,
)

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
