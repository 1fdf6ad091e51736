"""Scenario files: the world that a run plays, from TOML.

Invariants: validated whole before anything is started; unknown keys are errors; relative paths
mean relative to the scenario's own directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from edgeloop_protocol.config import Config, load_config
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.manifest import Statistic
from edgeloop_simulators.errors import ScenarioError

Fraction = Annotated[float, Field(ge=0, le=1)]
Windowed: Final[tuple[Statistic, ...]] = ("mean", "std", "min", "max", "mean_abs_diff")


class WatchData(Config):
    """The smartwatch recordings of ten people; no person stands on both sides."""

    kind: Literal["watch"]
    train_people: tuple[int, ...] = Field(min_length=1)
    device_people: tuple[int, ...] = Field(min_length=1)
    portions: PositiveInt = Field(default=2, description="devices a person: parts in time")
    rows: PositiveInt = 100
    train_hop_rows: PositiveInt = 25
    statistics: tuple[Statistic, ...] = Windowed

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        both = set(self.train_people) & set(self.device_people)
        if both:
            raise ValueError(f"people {sorted(both)} stand in train_people and in device_people")
        return self


class TabularData(Config):
    """A CSV with a header, a Parquet, or an .npy, in time order.

    `label`, `group` and `phase` are columns. An .npy is either structured (its fields are the
    columns) or (n, channels), and then `label`, `group` and `phase` name further .npy files
    beside it, each (n,). With `after_file` the two files are the two phases, and `phase` is left
    out. `rows` = 1: each row is an example; more: windows of so many rows, cut where group, label
    and phase stay the same, and described by `statistics`.
    """

    kind: Literal["tabular"]
    file: Path
    after_file: Path | None = None
    channels: tuple[str, ...] = Field(min_length=1)
    label: str
    group: str
    phase: str | None = None
    before: str = "before"
    after: str = "after"
    train_groups: tuple[str, ...] = Field(min_length=1)
    device_groups: tuple[str, ...] = Field(min_length=1)
    portions: PositiveInt = 1
    rows: PositiveInt = 1
    hop_rows: PositiveInt | None = Field(default=None, description="training windows; else rows")
    statistics: tuple[Statistic, ...] = Windowed

    @model_validator(mode="after")
    def _dealt(self) -> Self:
        both = set(self.train_groups) & set(self.device_groups)
        if both:
            raise ValueError(f"groups {sorted(both)} stand in train_groups and in device_groups")
        if (self.phase is None) == (self.after_file is None):
            raise ValueError("give either phase (a column) or after_file (a second file)")
        return self


class Devices(Config):
    examples_per_s: PositiveFloat = 9.0
    block_windows: PositiveInt = Field(default=5, description="in a row from one exercise")
    labels: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="label to values, dealt to the devices in turn"
    )


class Telemetry(Config):
    window_s: PositiveFloat = 4.0
    sketch_every: PositiveInt = 4
    sample_fraction: Fraction = 0.2
    samples_max_per_window: PositiveInt = 20
    budget_bytes_per_day: PositiveInt = 50 * 1024 * 1024


class Annotator(Config):
    """Labels a share of the samples, each `delay_s` after it was seen; fraction = 0: none."""

    fraction: Fraction = 0.65
    delay_s: float = Field(default=5.0, ge=0)
    poll_s: PositiveFloat = 0.5


class Controller(Config):
    """How often the controller looks; `raise_after` findings in a row raise a drift alarm."""

    tick_s: PositiveFloat = 0.5
    drift_s: PositiveFloat = 2.0
    raise_after: PositiveInt = 2
    retrain_s: PositiveFloat = 1.0


class Training(Config):
    """The user's script trains the first version and, through the policy, each later one."""

    script: Path
    model: str
    policy: dict[str, Any] = Field(
        default_factory=dict, description="keys of the policy file, beside the ones set here"
    )
    timeout_s: PositiveFloat = 120.0


class Rollout(Config):
    """Terms of every rollout of the run, as POST /v1/rollouts takes them."""

    waves: tuple[str, ...] = ("1", "100%")
    terms: dict[str, Any] = Field(default_factory=dict)


class BreakSensor(Config):
    """One device's sensor breaks: the raw values of `channels` are replaced."""

    do: Literal["break_sensor"]
    device: int = Field(ge=0, description="which device, from 0")
    channels: tuple[str, ...] = Field(min_length=1)
    sensor: str = Field(description="the sensor's name in the model's manifest")
    kind: Literal["stuck", "noise", "gain"] = "stuck"
    value: float = Field(default=0.0, description="stuck at; noise's deviation; the gain")
    deadline_s: PositiveFloat = 60.0


class ChangeWorld(Config):
    """The world changes for a share of the devices, from the first on. 0: it does not."""

    do: Literal["change_world"]
    share: Fraction = 1.0
    settle_s: float = Field(default=8.0, ge=0, description="so long at least on the old version")
    deadline_s: PositiveFloat = 90.0


class PublishBad(Config):
    """The running version with its labels permuted, or one whose scores are NaN."""

    do: Literal["publish_bad"]
    kind: Literal["permuted", "nan"]
    deadline_s: PositiveFloat = 60.0


class Plain(Config):
    """A step with nothing to set but its deadline."""

    do: Literal["publish_first", "start_devices", "roll_out_first", "retrain", "recover"]
    deadline_s: PositiveFloat = 60.0


class Observe(Config):
    """Let the devices infer until each has answered `examples` more with the good version."""

    do: Literal["observe"]
    examples: PositiveInt = 200
    deadline_s: PositiveFloat = 90.0


Step = Annotated[
    BreakSensor | ChangeWorld | PublishBad | Observe | Plain, Field(discriminator="do")
]


class Scenario(Config):
    title: str
    before: str = Field(default="before", description="the world at first, in a word or two")
    after: str = Field(default="after", description="the world after its change")
    seed: int = 0
    data: Annotated[WatchData | TabularData, Field(discriminator="kind")]
    devices: Devices = Devices()
    telemetry: Telemetry = Telemetry()
    annotator: Annotator = Annotator()
    controller: Controller = Controller()
    training: Training
    rollout: Rollout = Rollout()
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _told_in_order(self) -> Self:
        """Each step but the first stands after what it needs."""
        needs = {
            "roll_out_first": ("publish_first", "start_devices"),
            "observe": ("roll_out_first",),
            "break_sensor": ("roll_out_first",),
            "change_world": ("roll_out_first",),
            "retrain": ("change_world",),
            "recover": ("retrain",),
            "publish_bad": ("roll_out_first",),
        }
        done: set[str] = set()
        for step in self.steps:
            missing = [need for need in needs.get(step.do, ()) if need not in done]
            if missing:
                raise ValueError(f"step {step.do!r} needs {', '.join(missing)} before it")
            done.add(step.do)
        return self


@dataclass(frozen=True)
class Loaded:
    """A scenario and the directory that its relative paths start from."""

    scenario: Scenario
    path: Path

    def resolve(self, path: Path) -> Path:
        return path if path.is_absolute() else self.path.parent / path


def shipped() -> tuple[str, ...]:
    """Names of the scenarios that come with the package."""
    return tuple(sorted(path.parent.name for path in _shipped_root().glob("*/scenario.toml")))


def load_scenario(name_or_path: str, environment: Mapping[str, str] | None = None) -> Loaded:
    """A shipped name, or a path to a TOML file. Raises ScenarioError."""
    path = Path(name_or_path)
    if name_or_path in shipped() and not path.is_file():
        path = _shipped_root() / name_or_path / "scenario.toml"
    if not path.is_file():
        raise ScenarioError(
            f"no scenario {name_or_path!r}: give a TOML file, or one of: {', '.join(shipped())}"
        )
    try:
        return Loaded(load_config(Scenario, path, environment), path.resolve())
    except ConfigError as error:
        raise ScenarioError(str(error)) from error


def _shipped_root() -> Path:
    return Path(str(files("edgeloop_simulators") / "scenarios"))
