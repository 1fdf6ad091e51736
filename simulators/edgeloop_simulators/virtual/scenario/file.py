"""The scenario file of a virtual world, as people write it: one pydantic model for each table.

Invariants: nothing here or in the tables reads a file or knows of another table
(`scenario.references` does); unknown keys are errors; the JSON Schema in docs/spec/schemas is made
from these models.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from edgeloop_protocol.config import Config
from edgeloop_simulators.scenario import TabularData, WatchData
from edgeloop_simulators.virtual.scenario.expect_tables import ExpectTable
from edgeloop_simulators.virtual.scenario.fleet_tables import ClassTable, SiteTable
from edgeloop_simulators.virtual.scenario.model_tables import (
    BrokenSensorTable,
    DriftTable,
    MachinesData,
    ModelTable,
    RetrainingTable,
    SyntheticData,
)
from edgeloop_simulators.virtual.scenario.step_tables import (
    ChallengeStep,
    EndChallengeStep,
    FaultTable,
    LabelStep,
    OperatorStep,
    RollOutStep,
)
from edgeloop_simulators.virtual.scenario.values import Duration, Share, Size
from edgeloop_simulators.virtual.spec.faults import Rates


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
        Annotated[
            RollOutStep | OperatorStep | ChallengeStep | EndChallengeStep | LabelStep,
            Field(discriminator="do"),
        ],
        ...,
    ] = Field(min_length=1)
    faults: tuple[FaultTable, ...] = ()
    fault_rates: Rates = Field(default_factory=dict)
    retraining: RetrainingTable | None = None
    agent: AgentTable = AgentTable()
    controller: ControllerTable = ControllerTable()
    expect: ExpectTable = ExpectTable()
