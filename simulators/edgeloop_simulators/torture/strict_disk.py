"""Every step of an update on a disk that keeps what POSIX promises and no more.

ext4 makes up for much: an fsync of one file also saves the names that were made before it. Here an
agent is killed at each operation of an update, or told there that the disk is broken or full, goes
on or starts again, and at every operation from then on the two worst that a power cut could leave
are looked at: no name survives that was not synced, or all do; and of contents only what was
synced.

Invariant: one thread, no clock but a counted one: the same outcome each time.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from edgeloop_agent.core.effects import FetchArtifact, FetchManifest, StartRunner
from edgeloop_agent.core.events import (
    BrokerConnected,
    Event,
    Progress,
    RunnerExited,
    RunnerProgressed,
    RunnerSelfTested,
    RunnerServing,
)
from edgeloop_agent.core.journal_document import decode_journal
from edgeloop_agent.core.snapshot import SlotSnapshot
from edgeloop_agent.errors import AgentError, JournalDamagedError
from edgeloop_agent.ports import DownlinkMessage, RunnerSaid
from edgeloop_agent.shell import journal
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch import perform
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.model_store import ModelStore, manifest_path, model_path
from edgeloop_agent.shell.patch_route import PatchRoute
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.lifecycle import RESTING, SlotState
from edgeloop_protocol.messages import Offer
from edgeloop_simulators.torture.promises import Ledger, TellingJournal
from edgeloop_simulators.torture.striker import ContentOf, Fault, Killed, Striker, Struck
from edgeloop_simulators.torture.subject import (
    INVENTORY,
    QUICK,
    SLOT,
    Counterpart,
    Goal,
    config_of,
    unlimited_budget,
)
from edgeloop_simulators.torture.versions import Shelf
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.twins.outbox import MemoryOutbox
from edgeloop_simulators.twins.patch_applier import MemoryPatchApplier

TURNS_MAX: Final = 400
TURN_S: Final = 0.05
STARTS_MAX: Final = 3


def play(directory: Path) -> Iterator[Struck]:
    """Of an update by the full file and of one by a patch. `directory`: the shelf's."""
    for patched in (False, True):
        yield from _play(Shelf(directory, patched=patched))


def _play(shelf: Shelf) -> Iterator[Struck]:
    """One after the other, until an update has no further operation."""
    for place in count():
        for fault in Fault:
            run = _Update(shelf, place, fault)
            problems = run.play()
            if not run.striker.operation:
                return
            yield Struck(place, run.striker.operation, fault, tuple(problems))


class _CountedClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


class _Update:
    """From version 1 to version 2, with one fault on the way."""

    def __init__(self, shelf: Shelf, place: int, fault: Fault) -> None:
        self._shelf = shelf
        self._ledger = Ledger()
        self._clock = _CountedClock()
        self.striker = Striker(place, fault, lambda found: _problem(found, self._ledger))
        self._disk = self.striker.disk
        self._starts = 0

    def play(self) -> list[str]:
        self._live(Goal(revision=1, version=0))
        self.striker.begin()
        while self._starts <= STARTS_MAX:
            try:
                is_done = self._live(Goal(revision=2, version=1))
            except Killed:
                self._disk.process_killed()
                continue
            except (AgentError, OSError) as error:
                self.striker.problems.append(f"it does not start: {error}")
                break
            if not is_done:
                self.striker.problems.append("it does not go on by itself")
            break
        self.striker.look("the end")
        return self.striker.problems[:1]

    def _live(self, goal: Goal) -> bool:
        """True: the goal was reached."""
        self._starts += 1
        events: deque[Event | RunnerSaid | DownlinkMessage] = deque()
        runners = _Runners(self._disk, events.append)
        supervisor, counterpart = self._agent(goal, events, runners)
        supervisor.begin()
        for _ in range(TURNS_MAX):
            while events:
                supervisor.take(events.popleft())
            supervisor.turn()
            if counterpart.is_content:
                return True
            self._clock.now_s += TURN_S
            runners.beat()
        return False

    def _agent(
        self,
        goal: Goal,
        events: deque[Event | RunnerSaid | DownlinkMessage],
        runners: "_Runners",
    ) -> tuple[Supervisor, Counterpart]:
        counterpart = Counterpart(goal, self._shelf, QUICK, lambda _: None)
        store = ModelStore(self._disk)
        outbox = MemoryOutbox(f"{self._starts:016x}", 2**30)
        parts = Parts(
            config=config_of(Path("/nowhere"), self._shelf.stream),
            clock=self._clock,
            broker=counterpart,
            listener=_Listener(events.append),
            journal=TellingJournal(FileJournal(self._disk), self._saved),
            telemetry=Telemetry(outbox, unlimited_budget(), self._clock),
            store=store,
            host=runners,
            fetcher=_Fetcher(self._downloader(store), events.append),
            take_inventory=lambda: INVENTORY,
            status=_NoStatus(),
            jitter=lambda: 0.0,
        )
        return Supervisor(parts), counterpart

    def _downloader(self, store: ModelStore) -> Downloader:
        patches = PatchRoute(MemoryPatchApplier(self._disk), store)
        return Downloader(self._shelf, store, 0, patches)

    def _saved(self, line: str) -> None:
        self._ledger.take(line)
        self.striker.look("a promise")


def _problem(content_of: ContentOf, ledger: Ledger) -> str:
    document = content_of(journal.FILE_NAME)
    if document is None:
        return "no journal" if ledger.revision else ""
    try:
        snapshot = decode_journal(document)
    except JournalDamagedError as error:
        return f"EL-INV-1: a damaged journal: {error}"
    if snapshot.revision < ledger.revision:
        return f"EL-INV-4: revision {snapshot.revision} after {ledger.revision}"
    slot = next((slot for slot in snapshot.slots if slot.slot == SLOT), SlotSnapshot(slot=SLOT))
    return (
        _of_champion(slot, snapshot.revision, ledger)
        or _of_files(content_of, slot.champion, "champion", with_model=True)
        or _of_candidate(content_of, slot)
    )


def _of_champion(slot: SlotSnapshot, revision: int, ledger: Ledger) -> str:
    promised = ledger.champions.get(SLOT)
    if slot.champion is None:
        return "EL-INV-1: no champion" if promised else ""
    is_further = ledger.champions_before.get(SLOT) == promised
    is_other = promised not in (None, slot.champion.manifest_digest)
    if revision == ledger.revision and is_other and not is_further:
        return f"EL-INV-4: champion {slot.champion.ref}; {promised} was committed"
    return ""


def _of_candidate(content_of: ContentOf, slot: SlotSnapshot) -> str:
    """What its state rests on: a manifest from VERIFIED on, a model from STAGED on."""
    if slot.candidate is None or slot.state in RESTING:
        return ""
    with_model = slot.state not in (SlotState.VERIFIED, SlotState.DOWNLOADING)
    return _of_files(content_of, slot.candidate.offer, f"{slot.state} candidate", with_model)


def _of_files(content_of: ContentOf, version: Offer | None, what: str, with_model: bool) -> str:
    if version is None:
        return ""
    digest = version.manifest_digest
    wanted = {manifest_path(digest): digest}
    if with_model:
        wanted[model_path(digest)] = version.artifact_digest
    for path, expected in wanted.items():
        content = content_of(path)
        if content is None or hashlib.sha256(content).hexdigest() != expected:
            return f"EL-INV-1: {what} {version.ref} without its {path.rpartition('/')[2]}"
    return ""


# What is around the agent answers at once, through the same queue.


class _Listener:
    def __init__(self, post: Callable[[Event | DownlinkMessage], None]) -> None:
        self._post = post

    def connected(self) -> None:
        self._post(BrokerConnected())

    def disconnected(self, reason: str) -> None:
        """Never."""

    def message(self, topic: str, payload: bytes) -> None:
        self._post(DownlinkMessage(topic, payload))


class _NoStatus:
    def refresh(self, device: object, traffic: object, stopped: bool = False) -> None:
        """Nobody reads it."""


class _Fetcher:
    def __init__(self, downloader: Downloader, post: Callable[[Event], None]) -> None:
        self._downloader = downloader
        self._post = post

    def start(self) -> None:
        """There is nothing to start."""

    def submit(self, fetch: FetchManifest | FetchArtifact) -> None:
        self._post(perform(fetch, self._downloader, lambda: INVENTORY, lambda: False))

    def keep(self, manifests: frozenset[str]) -> None:
        """Nothing is underway."""

    def stop(self) -> None:
        """Nothing was started."""


class _Runners:
    def __init__(self, disk: MemoryDisk, post: Callable[[Event], None]) -> None:
        self._disk = disk
        self._post = post
        self._serving: set[tuple[str, int]] = set()

    def beat(self) -> None:
        for slot, runner in sorted(self._serving):
            self._post(RunnerProgressed(slot, runner, Progress(examples=100)))

    def start(self, effect: StartRunner) -> None:
        digest = effect.version.manifest_digest
        passed = self._disk.digest(manifest_path(digest)) == digest
        self._post(RunnerSelfTested(effect.slot, effect.runner, passed, "" if passed else "torn"))

    def go(self, slot: str, runner: int) -> None:
        self._serving.add((slot, runner))
        self._post(RunnerServing(slot, runner))

    def mirror(self, slot: str, runner: int, challenger: int) -> None:
        """There are no challengers."""

    def drop_shadow(self, slot: str, runner: int) -> None:
        """There is none."""

    def capture(self, slot: str, runner: int, examples: int) -> None:
        """There are no examples."""

    def stop(self, slot: str, runner: int, kill: bool) -> None:  # noqa: ARG002 - the port's
        self._serving.discard((slot, runner))
        self._post(RunnerExited(slot, runner, "exit status 0"))

    def stop_all(self, kill: bool) -> None:
        """The agent is killed, not stopped."""

    def alive(self) -> int:
        return 0
