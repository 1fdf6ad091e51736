"""What can happen to a device, as frozen values: the only input of the core beside `now`."""

from dataclasses import dataclass
from enum import Enum, auto

from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_protocol.manifest import Manifest
from edgeloop_protocol.messages import Desired, Inventory


@dataclass(frozen=True, slots=True)
class Started:
    """The agent has booted: recover from the journalled state."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline of `Device.next_deadline` has passed."""


@dataclass(frozen=True, slots=True)
class JournalSaved:
    """`snapshot` of a PersistJournal survives a power cut: what rests on it may be done."""

    snapshot: DeviceSnapshot


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """A PersistJournal could not be performed; the shell tries the newest again, for ever."""

    detail: str


@dataclass(frozen=True, slots=True)
class BrokerConnected:
    pass


@dataclass(frozen=True, slots=True)
class BrokerDisconnected:
    pass


@dataclass(frozen=True, slots=True)
class DesiredReceived:
    desired: Desired


@dataclass(frozen=True, slots=True)
class ManifestFetched:
    """The manifest is on disk and its digest is right; the inventory is as of now. `release`: as
    verified metadata lists it for this device; 0: it was not looked up."""

    slot: str
    digest: str
    manifest: Manifest
    inventory: Inventory
    artifact_on_disk: bool
    release: int = 0


@dataclass(frozen=True, slots=True)
class ArtifactFetched:
    """The artifact of manifest `digest` is on disk, verified and synced."""

    slot: str
    digest: str


class FetchProblem(Enum):
    WAIT = auto()  # no link, no disk: try again later, for ever
    CORRUPT = auto()  # the bytes are not what the digest names: a counted try
    UNUSABLE = auto()  # the right bytes, but not a manifest: no try will mend it
    UNTRUSTED = auto()  # verified metadata says otherwise: no try will mend it


@dataclass(frozen=True, slots=True)
class FetchFailed:
    slot: str
    digest: str
    problem: FetchProblem
    detail: str
    for_room: bool = False
    """It waits for this device's own disk, not for the link."""
    cause: str = ""
    """Of what is UNTRUSTED."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a serving runner did since its source was opened; sent every second, as a heartbeat.

    `errors` the model is answerable for; `source_errors` are malformed examples. Latencies are of
    inference alone, in microseconds, over the latest examples; None before the first.
    `source_problem`: why the source cannot be opened; the runner tries again, for ever.
    """

    examples: int = 0
    errors: int = 0
    source_errors: int = 0
    nonfinite: int = 0
    latency_p95_us: float | None = None
    shadow_latency_p95_us: float | None = None
    memory_bytes: int = 0
    first_error: str = ""
    source_problem: str = ""
    same_answers: int = 0
    """To how many different inputs all scores were the same, bit for bit; 0 once they differed."""
    shadow_varied: bool = False
    """To the same inputs the version in shadow gave different labels, each of them often."""


@dataclass(frozen=True, slots=True)
class RunnerLoading:
    """It is up and begins to load its version: a hang from here on is the version's. A host that
    does not tell this apart says RunnerSelfTested without it."""

    slot: str
    runner: int


@dataclass(frozen=True, slots=True)
class RunnerSelfTested:
    slot: str
    runner: int
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class RunnerServing:
    slot: str
    runner: int


@dataclass(frozen=True, slots=True)
class RunnerProgressed:
    slot: str
    runner: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class RestartRunnerAsked:
    """A person wants the champion's runner to begin anew. Answered by AnswerRequest."""

    slot: str
    request: str


@dataclass(frozen=True, slots=True)
class CaptureAsked:
    """A person wants to see the next examples. Answered by AnswerRequest."""

    slot: str
    request: str
    examples: int


@dataclass(frozen=True, slots=True)
class RunnerExited:
    slot: str
    runner: int
    detail: str


Event = (
    Started
    | Tick
    | JournalSaved
    | JournalFailed
    | BrokerConnected
    | BrokerDisconnected
    | DesiredReceived
    | ManifestFetched
    | ArtifactFetched
    | FetchFailed
    | RunnerLoading
    | RunnerSelfTested
    | RunnerServing
    | RunnerProgressed
    | RunnerExited
    | RestartRunnerAsked
    | CaptureAsked
)
SlotEvent = (
    ManifestFetched
    | ArtifactFetched
    | FetchFailed
    | RunnerLoading
    | RunnerSelfTested
    | RunnerServing
    | RunnerProgressed
    | RunnerExited
)
