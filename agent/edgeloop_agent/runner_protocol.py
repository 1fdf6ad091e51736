"""What supervisor and runner say to each other: one JSON document a line, over a socketpair.

Invariants: imports no numpy and no runtime, since both sides import it; lines are bounded by
RUNNER_LINE_MAX_BYTES. The runner also sends WindowSummary, ShadowSummary, Sample and DeviceEvent as
they go into the outbox. With each MirrorLine travels a descriptor (SCM_RIGHTS).
"""

from typing import Annotated, Final, Literal, TypeVar

from edgeloop_agent.config import RunnerConfig, SlotConfig, TelemetryConfig
from edgeloop_agent.errors import RunnerLineError
from edgeloop_protocol.documents import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from edgeloop_protocol.errors import first_problem
from edgeloop_protocol.limits import RUNNER_LINE_MAX_BYTES
from edgeloop_protocol.messages import (
    DeviceEvent,
    Sample,
    ShadowBudget,
    ShadowSummary,
    Text,
    VersionRef,
    WindowSummary,
)

HEARTBEAT_S: Final = 1.0

M = TypeVar("M")


class Line(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, cache_strings="keys"
    )


class ModelFiles(Line):
    version: VersionRef
    manifest_path: str
    model_path: str


class Endpoint(Line):
    """Descriptors that the runner inherits. `feed`: a listening socket or a pipe, open from one
    runner to the next. What one hands over by `hand_over`, the next takes from `take_over`."""

    feed: int | None = None
    hand_over: int
    take_over: int


class StartLine(Line):
    kind: Literal["start"] = "start"
    slot: str
    model: ModelFiles
    shadow: ModelFiles | None = None
    config: SlotConfig
    telemetry: TelemetryConfig
    memory_max_bytes: int = 0
    endpoint: Endpoint | None = None


class StartChallengerLine(Line):
    """Of a runner that has neither source nor sink: it waits for its end of a mirror."""

    kind: Literal["start_challenger"] = "start_challenger"
    slot: str
    model: ModelFiles
    budget: ShadowBudget
    runner: RunnerConfig
    telemetry: TelemetryConfig
    memory_max_bytes: int = 0


class MirrorLine(Line):
    """With the descriptor of a mirror's end. To the runner that answers: feed it. To a challenger:
    read it, from now on; `champion` is the version that answers."""

    kind: Literal["mirror"] = "mirror"
    champion: VersionRef


class GoLine(Line):
    kind: Literal["go"] = "go"


class DropShadowLine(Line):
    kind: Literal["drop_shadow"] = "drop_shadow"


class CaptureLine(Line):
    """Send the next examples for labelling, whatever the rules of capture would take."""

    kind: Literal["capture"] = "capture"
    examples: int


class StopLine(Line):
    kind: Literal["stop"] = "stop"


class ConfinedLine(Line):
    """Said once, before the model is loaded: what the runner gave up, and what it could not."""

    kind: Literal["confined"] = "confined"
    done: tuple[Text, ...] = ()
    lacking: tuple[Text, ...] = ()


class SelfTestedLine(Line):
    kind: Literal["self_tested"] = "self_tested"
    passed: bool
    detail: Text = ""


class ServingLine(Line):
    kind: Literal["serving"] = "serving"


class HeartbeatLine(Line):
    """The fields are those of core.events.Progress."""

    kind: Literal["heartbeat"] = "heartbeat"
    examples: int = 0
    errors: int = 0
    source_errors: int = 0
    nonfinite: int = 0
    latency_p95_us: float | None = None
    shadow_latency_p95_us: float | None = None
    memory_bytes: int = 0
    first_error: Text = ""
    source_problem: Text = ""
    same_answers: int = 0
    shadow_varied: bool = False


ToRunner = (
    StartLine | StartChallengerLine | MirrorLine | GoLine | DropShadowLine | StopLine | CaptureLine
)
FromRunner = (
    ConfinedLine
    | SelfTestedLine
    | ServingLine
    | HeartbeatLine
    | WindowSummary
    | ShadowSummary
    | Sample
    | DeviceEvent
)

_TO_RUNNER: TypeAdapter[ToRunner] = TypeAdapter(Annotated[ToRunner, Field(discriminator="kind")])
_FROM_RUNNER: TypeAdapter[FromRunner] = TypeAdapter(
    Annotated[FromRunner, Field(discriminator="kind")]
)


def encode_line(message: BaseModel) -> bytes:
    """Raises RunnerLineError above RUNNER_LINE_MAX_BYTES."""
    line = message.model_dump_json().encode() + b"\n"
    if len(line) > RUNNER_LINE_MAX_BYTES:
        raise RunnerLineError(
            f"a {type(message).__name__} of {len(line)} bytes; the limit is {RUNNER_LINE_MAX_BYTES}"
        )
    return line


def decode_to_runner(line: bytes | None) -> ToRunner:
    return _decode(_TO_RUNNER, line)


def decode_from_runner(line: bytes | None) -> FromRunner:
    return _decode(_FROM_RUNNER, line)


def _decode(adapter: TypeAdapter[M], line: bytes | None) -> M:
    if line is None:
        raise RunnerLineError(f"a line over {RUNNER_LINE_MAX_BYTES} bytes")
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        raise RunnerLineError(first_problem(error)) from error
