"""The ports of the shell: what the supervisor needs of the world, as small protocols.

Invariants: each has a contract suite in tests/contracts, run on the real adapter and on the
simulators' twin. The broker's port is edgeloop_protocol.mqtt.Broker.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from edgeloop_agent.core.effects import StartRunner
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_protocol.messages import RecordBody, TelemetryBatch


class Journal(Protocol):
    def load(self) -> tuple[DeviceSnapshot, str]:
        """The last state saved, and what was wrong with it, in words (empty: nothing).

        A damaged journal is kept aside and replaced by an empty state.
        """

    def save(self, snapshot: DeviceSnapshot) -> None:
        """Return when `snapshot` survives a power cut."""


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """What became of the records of one boot; `acked` is the highest acknowledged sequence."""

    epoch: str
    appended: int
    dropped: int
    acked: int
    held: int


class Outbox(Protocol):
    """Durable, bounded, ordered telemetry. `epoch` is fresh with each opening."""

    @property
    def epoch(self) -> str: ...

    def append(self, bodies: Sequence[RecordBody]) -> int:
        """Number and store; returns how many old records were dropped to keep the bound.

        Raises RecordTooLargeError, storing none, if one alone could not travel in a message.
        """

    def next_batch(self) -> TelemetryBatch | None:
        """The oldest records still held, oldest epoch first; the same until acknowledged."""

    def acknowledge(self, epoch: str, through: int) -> int:
        """Forget what the controller has; returns how many records that was. Idempotent."""

    def counts(self) -> tuple[EpochCounts, ...]:
        """Every epoch that this state directory remembers, oldest first."""

    def held_bytes(self) -> int: ...

    def close(self) -> None: ...


class ArtifactSource(Protocol):
    def open(self, digest: str, offset: int) -> AbstractContextManager[Iterator[bytes]]:
        """The artifact's bytes from `offset` on, in chunks of at most DOWNLOAD_CHUNK_BYTES.

        At the very end it yields nothing. Raises FetchUnreachableError, also while iterating, when
        the bytes cannot be had now: no link, no such artifact, an offset beyond the end.
        """


class RunnerHost(Protocol):
    """Runner processes; everything that they say is posted to the supervisor's queue."""

    def start(self, effect: StartRunner) -> None: ...

    def go(self, slot: str, runner: int) -> None: ...

    def drop_shadow(self, slot: str, runner: int) -> None: ...

    def stop(self, slot: str, runner: int, kill: bool) -> None: ...

    def stop_all(self, kill: bool) -> None: ...

    def alive(self) -> int:
        """How many runner processes there are."""


Post = Callable[[object], None]
"""Puts something on the supervisor's queue; called from any thread; blocks when it is full."""
