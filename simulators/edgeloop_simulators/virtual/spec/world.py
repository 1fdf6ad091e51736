"""What a virtual world is made of: devices, models, the controller's settings and the script.

Invariants: frozen; says nothing of faults (those are a list of their own) and nothing of results;
times are virtual seconds since the world's beginning, unless a name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop_controller.config import LimitsConfig
from edgeloop_protocol.manifest import Manifest
from edgeloop_simulators.virtual.spec.behaviour import Behaviour, Surroundings
from edgeloop_simulators.virtual.spec.retraining import RetrainingSpec


@dataclass(frozen=True)
class Link:
    """To broker and artifact server. `loss`: the share of downloads cut short, and of messages
    lost, without any fault."""

    latency_s: float = 0.05
    jitter_s: float = 0.02
    bytes_per_s: float = 1_000_000.0
    loss: float = 0.0


@dataclass(frozen=True)
class DailyWindow:
    """Hours of the device's local day, [from_h, to_h); over midnight when to_h < from_h."""

    from_h: float
    to_h: float


@dataclass(frozen=True)
class DeviceClass:
    name: str = "standard"
    architecture: str = "x86_64"
    runtime: str = "onnx"
    memory_bytes: int = 1 << 30
    disk_bytes: int = 1 << 26
    cpu_speed: float = 1.0
    """Divides the time that loading and inference take."""
    link: Link = Link()
    connected: tuple[DailyWindow, ...] = ()
    """When its radio is on; empty: always."""
    powered: tuple[DailyWindow, ...] = ()
    """When it is switched on; outside it is shut down cleanly. Empty: always."""


@dataclass(frozen=True)
class DeviceSpec:
    id: str
    site: str = "here"
    kind: DeviceClass = DeviceClass()
    labels: Mapping[str, str] = field(default_factory=dict)
    utc_offset_h: float = 0.0
    surroundings: Surroundings = field(default_factory=Surroundings)
    """What its sensors see; the behaviour of a model answers to it."""


@dataclass(frozen=True)
class ModelSpec:
    """A version that the script can publish; `behaviour` is what its runner does."""

    manifest: Manifest
    artifact: bytes
    behaviour: Behaviour


@dataclass(frozen=True)
class AgentTiming:
    """How often a runner speaks; sparse ones make long days of large fleets affordable."""

    progress_s: float = 5.0
    first_progress_s: float | None = None
    """From serving to the first sign of life, by which probation ends; None: `progress_s`."""
    window_s: float = 60.0
    examples_per_s: float = 1.0
    sample_fraction: float = 0.0
    heartbeat_timeout_s: float = 30.0
    outbox_max_bytes: int = 1 << 20
    download_bytes_per_s_max: float = 0.0
    """Of an agent's downloads, by its own configuration; 0: no cap."""
    cheap_outbox: bool = False
    """The twin in place of the real SQLite outbox: for fleets of ten thousand and more."""


@dataclass(frozen=True)
class ControllerTiming:
    ingest_s: float = 0.5
    """How long what arrived waits to be taken in one batch."""
    tick_s: float = 5.0
    drift_s: float | None = None
    """None: the drift watch does not run."""
    retrain_s: float | None = None
    """How often policies, runs and the annotator are looked at, in a world that retrains; None:
    never."""
    offline_after_s: float | None = None
    laws_every_s: float = 0.0
    """How often the whole database is held against the laws; 0: after every commit. Each message
    is, whatever this says."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)


@dataclass(frozen=True)
class Publish:
    """`model`: index in WorldSpec.models."""

    at_s: float
    model: int


@dataclass(frozen=True)
class StartRollout:
    at_s: float
    model: int
    selector: str = "all"
    waves: tuple[str, ...] = ("1", "50%", "100%")
    terms: Mapping[str, Any] = field(default_factory=dict)
    slot: str | None = None
    """None: WorldSpec.slot."""


@dataclass(frozen=True)
class EndRollouts:
    """Abort, pause or resume what is active, as an operator would."""

    at_s: float
    action: str


@dataclass(frozen=True)
class StartChallenger:
    """A version in shadow beside the champions, within `cpu_fraction` of a core."""

    at_s: float
    model: int
    selector: str = "all"
    cpu_fraction: float = 0.1


@dataclass(frozen=True)
class EndChallengers:
    """Stop those that are not stopped."""

    at_s: float


@dataclass(frozen=True)
class SetLabels:
    at_s: float
    device: str
    labels: Mapping[str, str]


Step = Publish | StartRollout | EndRollouts | StartChallenger | EndChallengers | SetLabels


@dataclass(frozen=True)
class WorldSpec:
    devices: tuple[DeviceSpec, ...]
    models: tuple[ModelSpec, ...]
    script: tuple[Step, ...]
    faults_end_s: float
    duration_s: float
    """At the end every device must have converged."""
    settles_s: float | None = None
    """Once faults have ended, the script is done and every device has been converged for so long,
    the world ends; None: it goes on for `duration_s`."""
    slot: str = "main"
    more_slots: tuple[str, ...] = ()
    """That each device has beside it; a StartRollout may name one."""
    agent: AgentTiming = AgentTiming()
    controller: ControllerTiming = ControllerTiming()
    broker: str = "ideal"
    """The profile that the simulated broker imitates (docs/spec/brokers.md)."""
    starts_at_wall_s: float = 1_767_225_600.0
    """The controller's clock and a healthy device's at the beginning: 2026-01-01, UTC."""
    chunks_a_file: int = 8
    """An artifact comes in so many, so that faults find the middle of small files too."""
    joins_over_s: float = 5.0
    """Devices are switched on one after the other within this time."""
    retraining: RetrainingSpec | None = None
    """None: it does not retrain."""
