"""The ports of the shell: what the supervisor needs of the world, as small protocols.

Invariants: Disk, Journal, Outbox, ArtifactSource, PatchApplier, Trust and RunnerHost each have a
contract suite in tests/contracts, run on the real adapter and on the simulators' twin. The broker's
port is edgeloop_protocol.mqtt.Broker. What adapters tell the supervisor are core events and the two
values here, RunnerSaid and DownlinkMessage.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from edgeloop_agent.core.device import Device
from edgeloop_agent.core.effects import FetchArtifact, FetchManifest, StartRunner
from edgeloop_agent.core.events import Event
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.core.trust import Listed
from edgeloop_protocol.messages import RecordBody, Reduced


class DiskFile(Protocol):
    def write(self, content: bytes) -> int: ...

    def sync(self) -> None:
        """Return when what was written survives a power cut, if the file's name does."""


class Disk(Protocol):
    """The agent's state directory. Paths are relative to it, with `/`; all raise OSError.

    A name (made, renamed, removed) survives a power cut after `sync_directory` of the directory it
    stands in, a file's content after its own `sync`, whatever came first.
    """

    def open(self, path: str, append: bool = False) -> AbstractContextManager[DiskFile]:
        """For writing: emptied, or from its end on."""

    def read(self, path: str) -> bytes: ...

    def size(self, path: str) -> int | None:
        """None: there is no such file."""

    def digest(self, path: str) -> str | None:
        """SHA-256 in hex; None when it is not there or cannot be read."""

    def rename(self, old: str, new: str) -> None:
        """Replaces `new` in one step."""

    def remove(self, path: str) -> None:
        """A file that is not there is removed already."""

    def make_directory(self, path: str) -> None:
        """One level; one that exists stays."""

    def list(self, path: str) -> tuple[str, ...]:
        """Names in order; those of directories end in `/`."""

    def remove_tree(self, path: str) -> None:
        """As much of it as can be removed."""

    def sync_directory(self, path: str) -> None:
        """`""` is the state directory itself."""

    def free_bytes(self) -> int: ...


class Journal(Protocol):
    def load(self) -> tuple[DeviceSnapshot, str]:
        """The last state saved, and what was wrong with it, in words (empty: nothing).

        A damaged journal is kept aside and replaced by an empty state.
        """

    def save(self, snapshot: DeviceSnapshot) -> None:
        """Return when `snapshot` survives a power cut."""


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """What became of the records of one boot; `acked` is the highest acknowledged sequence.

    `dropped` are lost, `merged` are windows that are part of others; a merged window that is
    dropped counts as the many that it was, and they are merged no more.
    """

    epoch: str
    appended: int
    dropped: int
    acked: int
    held: int
    merged: int = 0
    sketches_shed: int = 0
    samples_dropped: int = 0
    events_dropped: int = 0


@dataclass(frozen=True, slots=True)
class OutboxTotals:
    """Over all epochs that are remembered."""

    held: int
    held_bytes: int
    dropped: int
    merged: int = 0
    sketches_shed: int = 0
    samples_dropped: int = 0
    events_dropped: int = 0


@dataclass(frozen=True, slots=True)
class HeldRecords:
    """Consecutive records of one epoch; the first has sequence `base`. `reduced`: what that epoch
    gave up so far; None: nothing."""

    epoch: str
    base: int
    documents: tuple[bytes, ...]
    reduced: Reduced | None = None


class Outbox(Protocol):
    """Durable, bounded, ordered telemetry: bodies of records as JSON documents, read here only to
    make room. `epoch` is fresh with each opening.

    At the bound windows are merged and other things given up in the order of core.reduction.Rung;
    then the oldest are dropped, but the last record of an epoch only after all others: it carries
    the `base` by which the controller counts what is gone before it (EL-TEL-5). What a batch may
    have held is never merged (ADR 0019).
    """

    @property
    def epoch(self) -> str: ...

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        """Number and store; returns how many records were dropped to keep the bound.

        `budget_left_bytes` is stored with them, in one step. Raises
        RecordTooLargeError, storing none, if one alone could not travel in a message.
        """

    def next_batch(self) -> HeldRecords | None:
        """The oldest still held, oldest epoch first, up to the first number that nobody holds; the
        same until acknowledged. At most BATCH_RECORDS_MAX, and BATCH_TARGET_BYTES unless one alone
        is larger."""

    def acknowledge(self, epoch: str, through: int) -> int:
        """Forget what the controller has; returns how many records that was. Idempotent."""

    def load_budget(self) -> float | None:
        """The `budget_left_bytes` stored last, also before a restart; None: never."""

    def counts(self, newest: int) -> tuple[EpochCounts, ...]:
        """At most so many of the newest epochs that are remembered, oldest first."""

    def totals(self) -> OutboxTotals: ...

    def close(self) -> None: ...


class ArtifactSource(Protocol):
    def open(self, digest: str, offset: int) -> AbstractContextManager[Iterator[bytes]]:
        """The artifact's bytes from `offset` on, in chunks of at most DOWNLOAD_CHUNK_BYTES; an
        empty one lets whoever reads give up.

        At the very end it yields nothing. Raises FetchUnreachableError, also while iterating, when
        the bytes cannot be had now: no link, no such artifact (FetchMissingError), an offset beyond
        the end. So bytes that end without it are all that the server has.
        """


@dataclass(frozen=True, slots=True)
class PatchJob:
    """Paths are the disk's."""

    format: str
    base: str
    patch: str
    result: str
    result_bytes: int


class PatchApplier(Protocol):
    """Makes an artifact from another one and a patch, away from the supervisor's memory."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Those that this device can apply."""

    def apply(self, job: PatchJob) -> None:
        """Write `result`: at most `result_bytes`, in bounded time and memory, neither synced nor
        verified. Raises PatchFailedError with the reason, whatever went wrong."""


class Trust(Protocol):
    """TUF metadata, verified as of now, away from the supervisor's memory."""

    def look_up(self, names: Sequence[str]) -> Listed:
        """What the newest metadata lists under these target names. Raises TrustUnavailableError in
        words when there is none to be believed now: no link, expired, wrongly signed."""


class RunnerHost(Protocol):
    """Runner processes; everything that they say is posted to the supervisor's queue."""

    def start(self, effect: StartRunner) -> None: ...

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        """Both say nothing more of it: the challenger's RunnerServing follows when it is fed."""

    def go(self, slot: str, runner: int) -> None: ...

    def drop_shadow(self, slot: str, runner: int) -> None: ...

    def capture(self, slot: str, runner: int, examples: int) -> None:
        """Its next examples are sent as Samples."""

    def stop(self, slot: str, runner: int, kill: bool) -> None: ...

    def stop_all(self, kill: bool) -> None: ...

    def alive(self) -> int:
        """How many runner processes there are."""


Fetch = FetchManifest | FetchArtifact


class Fetcher(Protocol):
    """Performs fetches one after the other; answers each with exactly one event."""

    def start(self) -> None: ...

    def submit(self, fetch: Fetch) -> None: ...

    def keep(self, manifests: frozenset[str]) -> None:
        """Give up fetches of other versions."""

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rejected: malformed or oversized; dropped: too many at once for the queue."""

    bytes_up: int
    rejected_messages: int
    messages_dropped: int


class Status(Protocol):
    def refresh(self, device: Device, traffic: Traffic, stopped: bool = False) -> None:
        """Called after every turn: be quick, and raise nothing."""


@dataclass(frozen=True, slots=True)
class RunnerSaid:
    """Telemetry for the outbox: from a runner, or an event of a fetch."""

    slot: str
    body: RecordBody


@dataclass(frozen=True, slots=True)
class DownlinkMessage:
    topic: str
    payload: bytes


Post = Callable[[Event | RunnerSaid | DownlinkMessage], None]
"""Puts something on the supervisor's queue; called from any thread; blocks when it is full."""
