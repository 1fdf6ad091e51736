"""What the core wants done, as frozen values; the shell performs them in the order given.

Invariant: PersistJournal comes first, and what rests on a transition (fetching, starting or
switching to a candidate, removing a version) comes only after JournalSaved was said of it. The
other effects go on while the disk takes nothing: the champion, hello and reported, events.
"""

from dataclasses import dataclass

from edgeloop_agent.core.snapshot import CommittedRelease, DeviceSnapshot
from edgeloop_protocol.messages import Offer, ShadowBudget, SlotReported, VersionRef


@dataclass(frozen=True, slots=True)
class PersistJournal:
    """Answered by JournalSaved or JournalFailed; a later one replaces one not yet performed."""

    snapshot: DeviceSnapshot


@dataclass(frozen=True, slots=True)
class FetchManifest:
    """Answered by ManifestFetched or FetchFailed; from disk where it is there already.

    To be installed, so looked up in verified metadata first, where trust is on. `highest`: that the
    slot ever committed of this model. `is_installed`: to mend what runs, which is asked nothing.
    """

    slot: str
    offer: Offer
    highest: CommittedRelease | None = None
    is_installed: bool = False


@dataclass(frozen=True, slots=True)
class FetchArtifact:
    """Answered by ArtifactFetched or FetchFailed; resumed, or from disk, where possible."""

    slot: str
    offer: Offer


@dataclass(frozen=True, slots=True)
class StartRunner:
    """Start a runner process that loads, self-tests and waits for Go. `runner` is its number.

    `memory_max_bytes` caps what it may hold resident, a version in shadow included; 0: no cap.
    With a `budget` it is a challenger: it has neither source nor sink, and waits for Mirror.
    """

    slot: str
    runner: int
    version: VersionRef
    shadow: VersionRef | None
    memory_max_bytes: int = 0
    budget: ShadowBudget | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Let the runner that has the source feed the challenger what it answers, from now on."""

    slot: str
    runner: int
    challenger: int


@dataclass(frozen=True, slots=True)
class Go:
    """Let the runner open the source: no other runner of the slot has it."""

    slot: str
    runner: int


@dataclass(frozen=True, slots=True)
class DropShadow:
    slot: str
    runner: int


@dataclass(frozen=True, slots=True)
class CaptureExamples:
    """Let the runner send its next `examples` for labelling."""

    slot: str
    runner: int
    examples: int


@dataclass(frozen=True, slots=True)
class StopRunner:
    """Ask the runner to finish; with `kill` (it hangs) end it at once. RunnerExited follows."""

    slot: str
    runner: int
    kill: bool


@dataclass(frozen=True, slots=True)
class SendHello:
    revision: int
    slots: tuple[SlotReported, ...]


@dataclass(frozen=True, slots=True)
class SendReported:
    revision: int
    slots: tuple[SlotReported, ...]


@dataclass(frozen=True, slots=True)
class AppendEvent:
    """A DeviceEvent for the outbox; the shell adds the wall clock."""

    name: str
    slot: str | None = None
    version: VersionRef | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CollectGarbage:
    """Remove from the store every version that is not kept."""

    keep_manifests: frozenset[str]
    keep_artifacts: frozenset[str]


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What became of a RestartRunnerAsked or a CaptureAsked, in words."""

    request: str
    done: bool
    detail: str


Effect = (
    PersistJournal
    | FetchManifest
    | FetchArtifact
    | StartRunner
    | Mirror
    | Go
    | DropShadow
    | CaptureExamples
    | StopRunner
    | SendHello
    | SendReported
    | AppendEvent
    | CollectGarbage
    | AnswerRequest
)
