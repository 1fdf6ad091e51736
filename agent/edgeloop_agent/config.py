"""agent.toml: what a device is called, where its controller is, what its slots read and answer.

Invariants: every key has a type and, where it can, a default; paths become absolute here, once,
because the runner works in another directory; importing this needs no numpy and no runtime.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.config import Config
from edgeloop_protocol.errors import TopicError
from edgeloop_protocol.limits import (
    BUDGET_DEFAULT_BYTES_PER_DAY,
    MIB,
    OUTBOX_DEFAULT_MAX_BYTES,
    SLOTS_MAX,
)
from edgeloop_protocol.messages import Name, Text
from edgeloop_protocol.topics import check_device_id


def _device_id(value: str) -> str:
    try:
        return check_device_id(value)
    except TopicError as error:
        raise ValueError(str(error)) from error


AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
DeviceId = Annotated[str, AfterValidator(_device_id)]


class ReplaySource(Config):
    """Plays a CSV or NPY file. Without `window_rows` each row is one example."""

    kind: Literal["replay"] = "replay"
    path: AbsolutePath
    window_rows: int | None = Field(default=None, gt=1)
    hop_rows: int | None = Field(default=None, ge=1, description="default: window_rows")
    rate_hz: float = Field(default=1.0, gt=0, description="examples a second")
    loop: bool = True


class SocketSource(Config):
    """Connects to a Unix stream socket; one JSON line `{"reference", "values"}` an example."""

    kind: Literal["socket"] = "socket"
    path: AbsolutePath


class NoSink(Config):
    kind: Literal["none"] = "none"


class JsonlSink(Config):
    """One JSON line an answer; the file is renamed to `<path>.1` at `max_bytes`."""

    kind: Literal["jsonl"] = "jsonl"
    path: AbsolutePath
    max_bytes: int = Field(default=16 * MIB, gt=0)


class SocketSink(Config):
    """Answers on the source's own socket."""

    kind: Literal["socket"] = "socket"


Source = Annotated[ReplaySource | SocketSource, Field(discriminator="kind")]
Sink = Annotated[NoSink | JsonlSink | SocketSink, Field(discriminator="kind")]


class SlotConfig(Config):
    source: Source
    sink: Sink = NoSink()

    @model_validator(mode="after")
    def _answers_have_a_socket(self) -> Self:
        if self.sink.kind == "socket" and self.source.kind != "socket":
            raise ValueError('sink "socket" answers on the source\'s socket: use a socket source')
        return self


class BrokerConfig(Config):
    host: str = "127.0.0.1"
    port: int = Field(default=1883, gt=0, lt=65536)
    username: str | None = None
    password: str | None = None


class TelemetryConfig(Config):
    window_s: float = Field(default=10.0, gt=0)
    sketch_every: int = Field(default=6, ge=1, description="windows a sketch")
    sample_fraction: float = Field(default=0.02, ge=0, le=1)
    samples_max_per_window: int = Field(default=20, ge=0)
    budget_bytes_per_day: int = Field(default=BUDGET_DEFAULT_BYTES_PER_DAY, ge=0)
    outbox_max_bytes: int = Field(default=OUTBOX_DEFAULT_MAX_BYTES, gt=0)


class LimitsConfig(Config):
    attempts_max: int = Field(default=3, ge=1)
    corrupt_fetches_max: int = Field(default=3, ge=1)
    self_test_timeout_s: float = Field(default=60.0, gt=0)
    heartbeat_timeout_s: float = Field(default=15.0, gt=0)
    restart_backoff_s_max: float = Field(default=30.0, gt=0)
    stable_after_s: float = Field(default=60.0, gt=0)
    shadow_after_commit_s: float = Field(default=3600.0, ge=0)

    def core(self) -> CoreSettings:
        return CoreSettings(**self.model_dump())


class HomeAssistantConfig(Config):
    """With this table each slot is an update entity there; the broker must allow its topics."""

    discovery_prefix: str = Field(default="homeassistant", pattern=r"^[A-Za-z0-9_/-]+$")


class AgentConfig(Config):
    device_id: DeviceId
    state_dir: AbsolutePath
    controller_url: str = Field(pattern=r"^https?://[^/]+")
    broker: BrokerConfig = BrokerConfig()
    labels: dict[Name, Text] = Field(default_factory=dict, max_length=64)
    slots: dict[Name, SlotConfig] = Field(min_length=1, max_length=SLOTS_MAX)
    telemetry: TelemetryConfig = TelemetryConfig()
    limits: LimitsConfig = LimitsConfig()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    home_assistant: HomeAssistantConfig | None = None
    log_format: Literal["text", "json"] = "text"
