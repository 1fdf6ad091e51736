"""The controller's configuration: one TOML file, overlaid by EDGELOOP_ variables.

Invariants: every limit that an operator may change is a field here, with its unit in its name.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from edgeloop_controller.access_config import AccessConfig
from edgeloop_controller.ca.config import CaConfig, EnrolmentConfig
from edgeloop_controller.mlflow_config import MlflowConfig
from edgeloop_protocol.config import Config
from edgeloop_protocol.limits import ARTIFACT_MAX_BYTES, KIB, MIB
from edgeloop_protocol.loopback import is_loopback
from edgeloop_protocol.messages import Name
from edgeloop_protocol.tls_config import TlsConfig

MANIFEST_TOML_MAX_BYTES: Final = MIB
BASELINE_MAX_BYTES: Final = 512 * MIB
WEBHOOKS_MAX: Final = 16

EventKind = Annotated[str, Field(pattern=r"^(\*|[a-z_]+\.(\*|[a-z_0-9.-]+))$", max_length=128)]
"""`rollout.halted`, `rollout.*`, or `*` for all."""


class HttpTlsConfig(Config):
    """Nothing: a certificate of the controller's own authority, renewed by itself."""

    certificate_path: Path | None = Field(default=None, description="PEM, with its chain")
    key_path: Path | None = Field(default=None, description="PEM, chmod 600")
    names: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(
        default=(), max_length=32, description="that devices and people reach it by; (): host"
    )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate_path is None) != (self.key_path is None):
            raise ValueError("give certificate_path and key_path, or neither")
        return self


class HttpConfig(Config):
    """Beyond loopback with TLS only, unless `plain` says that something in front ends it."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535, description="0: any free port")
    plain: bool = Field(default=False, description="no TLS here: a proxy in front ends it")
    tls: HttpTlsConfig | None = Field(default=None, description="{}: by our own authority")

    @model_validator(mode="after")
    def _beyond_loopback_by_tls(self) -> Self:
        if self.tls is None and not self.plain and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is not loopback, and there is no TLS: add a table [http.tls], or set "
                "plain = true where a proxy in front of it ends TLS"
            )
        if self.tls is not None and self.plain:
            raise ValueError("plain = true and [http.tls] contradict each other: take one away")
        by_us = self.tls is not None and self.tls.certificate_path is None
        if by_us and not self.names:
            raise ValueError(
                f"{self.host} is no name: set names in [http.tls] to those that the controller "
                "is reached by"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """For a certificate."""
        if self.tls is not None and self.tls.names:
            return self.tls.names
        return () if self.host in ("0.0.0.0", "::", "") else (self.host,)  # noqa: S104


class BrokerAccessConfig(Config):
    """The broker knows devices by their certificates, and is told who they are (ADR 0033)."""

    kind: Literal["mosquitto", "nats"]
    directory: Path = Field(description="that `edgeloop broker config` wrote, and the broker reads")
    reload_command: tuple[str, ...] = Field(
        min_length=1, max_length=32, description="makes the broker read its files again"
    )


class BrokerConfig(Config):
    """`embedded`: an iotcore broker is started on `host`:`port` and dies with the controller."""

    embedded: bool = False
    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    username: str | None = None
    password: str | None = None
    client_id: str = "edgeloop-controller"
    tls: TlsConfig | None = Field(
        default=None,
        description="{}: the system's authorities; None beside [broker.access]: our own",
    )
    plain: bool = Field(default=False, description="no TLS beyond loopback: a network you trust")
    access: BrokerAccessConfig | None = None

    @model_validator(mode="after")
    def _beyond_loopback_by_tls(self) -> Self:
        is_tls = self.tls is not None or self.access is not None
        if not is_tls and not self.plain and not is_loopback(self.host):
            raise ValueError(
                f"the broker at {self.host} is not on this machine, and there is no TLS: add tls, "
                "or a table [broker.access] (docs/devices.md), or plain = true on a network that "
                "you trust"
            )
        return self

    @model_validator(mode="after")
    def _embedded_is_loopback(self) -> Self:
        if self.embedded and self.host not in ("127.0.0.1", "localhost"):
            raise ValueError(
                "the embedded broker knows no users and listens on loopback only: set "
                "host to 127.0.0.1, or embedded to false and run a broker of your own"
            )
        if self.embedded and (self.tls is not None or self.access is not None):
            raise ValueError(
                "the embedded broker speaks no TLS: leave tls and access out, or set embedded to "
                "false and run a broker of your own"
            )
        return self


class DriftConfig(Config):
    enabled: bool = True
    interval_s: float = Field(default=5.0, gt=0)
    silent_s_max: float = Field(
        default=86400.0, gt=0, description="a device that said nothing for longer is not judged"
    )
    raise_after: int = Field(default=3, ge=1, description="consecutive findings")
    clear_after: int = Field(default=5, ge=1, description="consecutive looks without a finding")


class RetrainingConfig(Config):
    policies_dir: Path | None = None
    scripts_dir: Path | None = Field(
        default=None,
        description="of the scripts and inputs of policies given over the API; None: none taken",
    )
    runs_dir: Path | None = Field(default=None, description="None: <data_dir>/runs")
    interval_s: float = Field(default=2.0, gt=0)
    provenance: bool = Field(
        default=True, description="an in-toto statement beside each run that published a version"
    )


class PatchesConfig(Config):
    """Patches between versions, for devices that can apply them (ADR 0015)."""

    enabled: bool = True
    interval_s: float = Field(default=2.0, gt=0)
    artifact_min_bytes: int = Field(default=64 * KIB, ge=0, description="smaller ones go whole")
    artifact_max_bytes: int = Field(
        default=256 * MIB, gt=0, description="making a patch takes some ten times that in memory"
    )
    max_bytes: int = Field(default=1024 * MIB, ge=0, description="of all patches that are kept")


class WebhookConfig(Config):
    """One receiver of events; see docs/webhooks.md."""

    url: str = Field(max_length=2048, pattern=r"^https?://[^\s/?#]+\S*$")
    secret_file: Path = Field(description="a line a secret, `whsec_` and base64; all of them sign")
    kinds: tuple[EventKind, ...] = Field(
        default=("rollout.*", "drift.*", "training.*", "device.*"), min_length=1, max_length=32
    )
    timeout_s: float = Field(default=10.0, gt=0, le=60, description="of a whole attempt")
    attempts_max: int = Field(default=1000, ge=1, description="then the event is given up")
    give_up_after_s: float = Field(
        default=86_400.0, ge=0, description="an attempt that fails so long after the event is last"
    )


class WebhooksConfig(Config):
    source: str = Field(
        default="urn:edgeloop:controller",
        min_length=1,
        max_length=256,
        pattern=r"^\S+$",
        description="of the CloudEvents: a URI that tells this controller from others",
    )
    hooks: dict[Name, WebhookConfig] = Field(default_factory=dict, max_length=WEBHOOKS_MAX)


class TrustConfig(Config):
    """Signed models: what the controller signs by itself (docs/trust.md)."""

    timestamp_s: float = Field(
        default=86_400.0, ge=60, description="for how long devices install without hearing of us"
    )
    snapshot_s: float = Field(default=7 * 86_400.0, ge=60)
    renew_interval_s: float = Field(default=60.0, gt=0, description="between two looks")
    warn_s: float = Field(
        default=14 * 86_400.0, ge=0, description="before what people signed expires"
    )


class LimitsConfig(Config):
    """What the controller accepts and holds at most."""

    upload_max_bytes: int = Field(default=256 * MIB, gt=0, le=ARTIFACT_MAX_BYTES)
    baseline_max_bytes: int = Field(default=64 * MIB, gt=0, le=BASELINE_MAX_BYTES)
    inbox_max_messages: int = Field(default=20_000, gt=0)
    inbox_max_bytes: int = Field(default=64 * MIB, gt=0)
    batch_max_messages: int = Field(
        default=1000, gt=0, le=10_000, description="messages in one transaction"
    )
    requests_per_s: float = Field(
        default=100.0, gt=0, description="of one address, in the long run; artifacts not counted"
    )
    requests_burst: int = Field(default=500, ge=1, description="of one address, at once")
    body_timeout_s: float = Field(
        default=600.0, gt=0, description="for a request's whole body to arrive"
    )
    body_silence_s: float = Field(
        default=30.0, gt=0, description="between two pieces of a request's body"
    )


class ControllerConfig(Config):
    """`edgeloop serve --config controller.toml`."""

    data_dir: Path = Path("edgeloop-data")
    http: HttpConfig = HttpConfig()
    access: AccessConfig = AccessConfig()
    broker: BrokerConfig = BrokerConfig()
    database_url: str | None = Field(default=None, description="None: SQLite in data_dir")
    tick_s: float = Field(default=1.0, gt=0)
    offline_after_s: float | None = Field(
        default=None, gt=0, description="silence after which a device counts as offline"
    )
    drift: DriftConfig = DriftConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    patches: PatchesConfig = PatchesConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    mlflow: MlflowConfig | None = Field(default=None, description="None: no MLflow")
    trust: TrustConfig = TrustConfig()
    ca: CaConfig = CaConfig()
    enrolment: EnrolmentConfig = EnrolmentConfig()
    limits: LimitsConfig = LimitsConfig()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _two_persons_are_known(self) -> Self:
        if self.access.two_person_rollouts and not self.requires_token:
            raise ValueError(
                "[access] two_person_rollouts needs to know who asks: set [access] require = true"
            )
        return self

    @property
    def requires_token(self) -> bool:
        if self.access.require is not None:
            return self.access.require
        return not is_loopback(self.http.host)

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'edgeloop.sqlite'}"

    @property
    def artifacts_dir(self) -> Path:
        return self.data_dir / "artifacts"

    @property
    def trust_dir(self) -> Path:
        return self.data_dir / "trust"

    @property
    def ca_dir(self) -> Path:
        return self.data_dir / "ca"

    @property
    def runs_dir(self) -> Path:
        return self.retraining.runs_dir or self.data_dir / "runs"
