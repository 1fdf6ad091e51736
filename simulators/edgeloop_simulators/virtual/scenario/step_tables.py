"""Tables of a scenario file for what is done, and what goes wrong: steps and faults."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.core.selector import parse
from edgeloop_controller.core.waves import parse_waves
from edgeloop_controller.errors import SelectorError, WaveError
from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import Name
from edgeloop_simulators.virtual.scenario.values import Duration, VersionName
from edgeloop_simulators.virtual.spec.faults import FaultKind


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


class ChallengeStep(Config):
    """A version, published just before unless it was, in shadow beside the champions."""

    do: Literal["challenge"]
    at: Duration = 0.0
    model: VersionName
    selector: Selector = "all"
    cpu_fraction: float = Field(default=0.1, gt=0, le=1)


class EndChallengeStep(Config):
    do: Literal["end_challenge"]
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
