"""agent.toml: what a device is called, where its controller is, what its slots read and answer.

Invariants: every key has a type and, where it can, a default; paths become absolute here, once,
because the runner works in another directory; importing this needs no numpy and no runtime.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.config import Config
from edgeloop_protocol.documents import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from edgeloop_protocol.errors import TopicError
from edgeloop_protocol.limits import (
    BUDGET_DEFAULT_BYTES_PER_DAY,
    DOWNLOAD_MIN_BYTES_PER_S,
    MIB,
    OUTBOX_DEFAULT_MAX_BYTES,
    SENSORS_MAX,
    SLOTS_MAX,
)
from edgeloop_protocol.loopback import is_loopback
from edgeloop_protocol.messages import Name, Text
from edgeloop_protocol.tls_config import TlsConfig
from edgeloop_protocol.topics import check_device_id


def _device_id(value: str) -> str:
    try:
        return check_device_id(value)
    except TopicError as error:
        raise ValueError(str(error)) from error


CERTIFICATE_NAME: Final = "device.pem"
"""Of the identity: the key, its certificate, and the authorities between it and the root."""
AUTHORITY_NAME: Final = "ca.pem"


def _host_of(url: str) -> str:
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]


AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
DeviceId = Annotated[str, AfterValidator(_device_id)]


class ReplaySource(Config):
    """Plays a CSV or NPY file. Without `window_rows` each row is one example."""

    needs_network: ClassVar[bool] = False
    kind: Literal["replay"] = "replay"
    path: AbsolutePath
    window_rows: int | None = Field(default=None, gt=1)
    hop_rows: int | None = Field(default=None, ge=1, description="default: window_rows")
    rate_hz: float = Field(default=1.0, gt=0, description="examples a second")
    loop: bool = True


class SocketSource(Config):
    """Connects to a Unix stream socket; one JSON line `{"reference", "values"}` an example."""

    needs_network: ClassVar[bool] = False
    kind: Literal["socket"] = "socket"
    path: AbsolutePath


class OpenInferenceSource(Config):
    """Serves the Open Inference Protocol V2 over HTTP, on loopback or on a Unix socket."""

    needs_network: ClassVar[bool] = False  # it is handed the listening socket
    kind: Literal["open_inference"] = "open_inference"
    host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    port: int | None = Field(default=None, gt=0, lt=65536)
    path: AbsolutePath | None = Field(default=None, description="a Unix socket; instead of a port")

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.port is None) == (self.path is None):
            raise ValueError("open_inference listens on a port or on a path: give one of them")
        return self


class LinesSource(Config):
    """JSON lines as of `socket`, from the agent's standard input or from a FIFO at `path`."""

    needs_network: ClassVar[bool] = False
    kind: Literal["lines"] = "lines"
    path: AbsolutePath | None = Field(default=None, description="default: standard input")


class MqttTopic(Config):
    """Of a broker on this device or beside it; not the controller's."""

    kind: Literal["mqtt"] = "mqtt"
    topic: str = Field(min_length=1, max_length=1024)
    host: str = "127.0.0.1"
    port: int = Field(default=1883, gt=0, lt=65536)
    username: str | None = None
    password: str | None = None


SOURCE_KINDS: Final = ("replay", "socket", "open_inference", "lines", "mqtt")
SINK_KINDS: Final = ("none", "jsonl", "socket", "mqtt")


class PlugIn(Config):
    """A kind that is not built in: an entry point of edgeloop.sources or edgeloop.sinks."""

    built_in: ClassVar[tuple[str, ...]]

    kind: Name
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _is_no_misspelt_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.keys() - {"kind", "options"}:
            raise ValueError(
                f"{value.get('kind')!r} is not one of {', '.join(map(repr, cls.built_in))}; "
                "a plug-in of another name takes its settings under options"
            )
        return value


class PlugInSource(PlugIn):
    built_in: ClassVar[tuple[str, ...]] = SOURCE_KINDS


class PlugInSink(PlugIn):
    built_in: ClassVar[tuple[str, ...]] = SINK_KINDS


class NoSink(Config):
    needs_network: ClassVar[bool] = False
    kind: Literal["none"] = "none"


class JsonlSink(Config):
    """One JSON line an answer; the file is renamed to `<path>.1` at `max_bytes`."""

    needs_network: ClassVar[bool] = False
    kind: Literal["jsonl"] = "jsonl"
    path: AbsolutePath
    max_bytes: int = Field(default=16 * MIB, gt=0)


class SocketSink(Config):
    """Answers on the source's own socket."""

    needs_network: ClassVar[bool] = False
    kind: Literal["socket"] = "socket"


PLUG_IN: Final = "plug-in"


def _kind_of(built_in: tuple[str, ...]) -> Discriminator:
    def kind(value: Any) -> str:
        found = value.get("kind") if isinstance(value, dict) else value.kind
        return found if found in built_in else PLUG_IN

    return Discriminator(kind)


Source = Annotated[
    Annotated[ReplaySource, Tag("replay")]
    | Annotated[SocketSource, Tag("socket")]
    | Annotated[OpenInferenceSource, Tag("open_inference")]
    | Annotated[LinesSource, Tag("lines")]
    | Annotated[MqttTopic, Tag("mqtt")]
    | Annotated[PlugInSource, Tag(PLUG_IN)],
    _kind_of(SOURCE_KINDS),
]
Sink = Annotated[
    Annotated[NoSink, Tag("none")]
    | Annotated[JsonlSink, Tag("jsonl")]
    | Annotated[SocketSink, Tag("socket")]
    | Annotated[MqttTopic, Tag("mqtt")]
    | Annotated[PlugInSink, Tag(PLUG_IN)],
    _kind_of(SINK_KINDS),
]


class CaptureConfig(Config):
    """What is sent for labelling, in place of telemetry.sample_fraction."""

    reservoir_per_window: int = Field(default=5, ge=0, le=1000, description="a fair sample")
    by_rule_per_window: int = Field(default=20, ge=0, le=1000)
    confidence_below: float | None = Field(default=None, gt=0, le=1)
    disagreement: bool = Field(default=False, description="with the version in shadow")
    outside_baseline: bool = Field(
        default=False, description="a feature beyond the lowest or highest of the training data"
    )
    outside_margin: float = Field(default=0.0, ge=0, description="beyond it, in shares of its span")


class RunnerConfig(Config):
    """How far a slot's runner is confined. What the kernel does not do is said in the status."""

    network: Literal["auto", "none", "host"] = Field(
        default="auto", description="auto: none, unless the source or the sink needs it"
    )
    nice: int = Field(default=0, ge=-20, le=19)
    cpus: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), description="empty: any")
    writable: tuple[AbsolutePath, ...] = Field(
        default=(), description="folders that it may write to, beside the sink's"
    )


class SlotConfig(Config):
    source: Source
    sink: Sink = NoSink()
    runner: RunnerConfig = RunnerConfig()
    capture: CaptureConfig | None = None
    batch: bool = Field(
        default=False,
        description="examples that wait together are one run of a model with a free batch",
    )

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
    tls: TlsConfig | None = Field(default=None, description="{}: the system's authorities")


class TelemetryConfig(Config):
    window_s: float = Field(default=10.0, gt=0)
    sketch_every: int = Field(default=6, ge=1, description="windows a sketch")
    sample_fraction: float = Field(default=0.02, ge=0, le=1)
    samples_max_per_window: int = Field(default=20, ge=0)
    private_features: tuple[str, ...] = Field(
        default=(), description="features whose values never leave the device"
    )
    capture_bytes_per_day: int | None = Field(
        default=None, ge=0, description="of samples, within budget_bytes_per_day"
    )
    budget_bytes_per_day: int = Field(default=BUDGET_DEFAULT_BYTES_PER_DAY, ge=0)
    outbox_max_bytes: int = Field(default=OUTBOX_DEFAULT_MAX_BYTES, gt=0)


class LimitsConfig(Config):
    attempts_max: int = Field(default=3, ge=1)
    corrupt_fetches_max: int = Field(default=3, ge=1)
    start_timeout_s: float = Field(default=60.0, gt=0)
    self_test_timeout_s: float = Field(default=20.0, gt=0)
    self_test_read_bytes_per_s: float = Field(default=1_000_000.0, gt=0)
    runner_memory_max_bytes: int = Field(
        default=0,
        ge=0,
        description="of a runner whose manifest names no requires.memory_bytes; "
        "0: a share of the device's memory",
    )
    heartbeat_timeout_s: float = Field(default=15.0, gt=0)
    restart_backoff_s_max: float = Field(default=30.0, gt=0)
    stable_after_s: float = Field(default=60.0, gt=0)
    shadow_after_commit_s: float = Field(default=3600.0, ge=0)
    siblings_wait_s_max: float = Field(
        default=21_600.0, ge=0, description="for other slots' downloads; 0: each for itself"
    )
    download_bytes_per_s_max: float = Field(
        default=0.0, ge=0, description="of all downloads together; 0: no cap"
    )

    @field_validator("download_bytes_per_s_max")
    @classmethod
    def _is_a_rate_that_arrives(cls, value: float) -> float:
        if 0 < value < DOWNLOAD_MIN_BYTES_PER_S:
            raise ValueError(f"at least {DOWNLOAD_MIN_BYTES_PER_S} bytes a second, or 0: no cap")
        return value

    def core(self) -> CoreSettings:
        return CoreSettings(**self.model_dump(include={it.name for it in fields(CoreSettings)}))


class TrustConfig(Config):
    """What a version must be signed by (ADR 0032). Without this table unsigned ones are taken from
    a controller on this machine, and from no other."""

    root: AbsolutePath | None = Field(
        default=None, description="root.json of the publisher, to begin with: where trust is on"
    )
    metadata_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+",
        description="default: the controller's /v1/trust/metadata",
    )
    unsigned: bool = Field(default=False, description="take whatever the controller offers")

    @model_validator(mode="after")
    def _is_on_or_off(self) -> Self:
        if (self.root is None) != self.unsigned:
            raise ValueError("either root = the publisher's root.json, or unsigned = true")
        return self


class IdentityConfig(Config):
    """With this table the device is known by a certificate that it enrolled for and renews."""

    directory: AbsolutePath | None = Field(default=None, description="None: <state_dir>/identity")


class HomeAssistantConfig(Config):
    """With this table each slot is an update entity there; the broker must allow its topics."""

    discovery_prefix: str = Field(default="homeassistant", pattern=r"^[A-Za-z0-9_/-]+$")


class AgentConfig(Config):
    device_id: DeviceId
    state_dir: AbsolutePath
    controller_url: str = Field(pattern=r"^https?://[^/]+")
    controller_tls: TlsConfig | None = Field(
        default=None, description="for https; None: the identity's files, or the system's"
    )
    identity: IdentityConfig | None = None
    broker: BrokerConfig = BrokerConfig()
    labels: dict[Name, Text] = Field(default_factory=dict, max_length=64)
    sensors: tuple[Name, ...] = Field(
        default=(), max_length=SENSORS_MAX, description="what the device has, for its inventory"
    )
    slots: dict[Name, SlotConfig] = Field(min_length=1, max_length=SLOTS_MAX)
    telemetry: TelemetryConfig = TelemetryConfig()
    limits: LimitsConfig = LimitsConfig()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    home_assistant: HomeAssistantConfig | None = None
    trust: TrustConfig | None = None
    log_format: Literal["text", "json"] = "text"
    plain: bool = Field(
        default=False, description="no TLS beyond this machine: a network that you trust"
    )

    @model_validator(mode="after")
    def _says_whom_it_trusts(self) -> Self:
        if self.trust is None and not is_loopback(_host_of(self.controller_url)):
            raise ValueError(
                "[trust] is missing, and the controller is not on this machine: name the "
                "publisher's root.json ([trust] root = PATH), or allow unsigned models "
                "([trust] unsigned = true)"
            )
        return self

    @property
    def signed_only(self) -> bool:
        return self.trust is not None and not self.trust.unsigned

    @property
    def trust_in_words(self) -> str:
        if self.trust is None:
            return "models are not verified: the controller is on this machine"
        if self.trust.unsigned:
            return "models are not verified: [trust] unsigned = true"
        return f"only signed models, by {self.trust.root}"

    @property
    def trust_metadata_url(self) -> str:
        given = self.trust.metadata_url if self.trust is not None else None
        return given or f"{self.controller_url.rstrip('/')}/v1/trust/metadata"

    def core(self) -> CoreSettings:
        return replace(self.limits.core(), signed_only=self.signed_only)

    @model_validator(mode="after")
    def _beyond_this_machine_by_tls(self) -> Self:
        host = _host_of(self.controller_url)
        over_http = self.controller_url.startswith("http://") and not is_loopback(host)
        over_mqtt = self.broker_tls is None and not is_loopback(self.broker.host)
        if self.plain or not (over_http or over_mqtt):
            return self
        what = (
            f"controller_url {self.controller_url}" if over_http else f"[broker] {self.broker.host}"
        )
        raise ValueError(
            f"{what} is not on this machine, and without TLS: use https, and a table [identity] "
            "or tls under [broker] (docs/devices.md), or set plain = true on a network you trust"
        )

    @property
    def identity_dir(self) -> Path:
        """Where `edgeloop-agent enroll` keeps what it gets, also without the table."""
        given = self.identity.directory if self.identity is not None else None
        return given or Path(self.state_dir) / "identity"

    @property
    def broker_tls(self) -> TlsConfig | None:
        return self._with_identity(self.broker.tls)

    @property
    def http_tls(self) -> TlsConfig | None:
        return self._with_identity(self.controller_tls)

    def _with_identity(self, given: TlsConfig | None) -> TlsConfig | None:
        """What is configured goes first; a table that is there without a ca_path means the
        system's authorities."""
        if self.identity is None:
            return given
        shown = self.identity_dir / CERTIFICATE_NAME
        if given is None:
            return TlsConfig(ca_path=self.identity_dir / AUTHORITY_NAME, certificate_path=shown)
        if given.certificate_path is None:
            return given.model_copy(update={"certificate_path": shown})
        return given
