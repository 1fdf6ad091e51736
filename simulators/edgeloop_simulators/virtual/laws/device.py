"""What must hold on every device, whatever happens to it: EL-INV-1 to 4, 8 to 11, and 15.

Invariants: what the medium itself changed (a flipped bit) is held against nobody until it is whole
again; durable is what a power cut now would certainly leave.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from edgeloop_agent.core.journal_document import decode_journal
from edgeloop_agent.core.snapshot import DeviceSnapshot, SlotSnapshot
from edgeloop_agent.core.wanted import TRYING
from edgeloop_agent.errors import JournalDamagedError
from edgeloop_agent.shell.journal import FILE_NAME as JOURNAL
from edgeloop_agent.shell.model_store import manifest_path, model_path
from edgeloop_protocol.limits import EVENT_QUEUE_MAX, KIB, SLOTS_MAX
from edgeloop_protocol.messages import VersionRef
from edgeloop_simulators.virtual.device.disk import How
from edgeloop_simulators.virtual.device.host import DeviceHost
from edgeloop_simulators.virtual.device.known import parse_known
from edgeloop_simulators.virtual.device.runner import VirtualRunner
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.laws.breaches import Breaches

UNSERVED_S_MAX: Final = 240.0
"""How long nobody may serve on a powered device that has a sound champion: a candidate's self-test
that hangs, a restart at the longest backoff, and some room."""
JOURNAL_MAX_BYTES: Final = 8 * KIB * SLOTS_MAX
FETCHES_WAITING_MAX: Final = 64
DIGESTS_KEPT_MAX: Final = 512
CLOCK_ERROR_S: Final = 1e-6
CORRUPT: Final = "digest mismatch"
"""The cause of a refusal that blames the bytes that a server sent."""
UNUSABLE: Final = "unusable manifest"
"""One that blames a manifest of the right digest; all that are published here are good."""


@lru_cache(maxsize=DIGESTS_KEPT_MAX)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(slots=True)
class _Known:
    """What was seen of one device up to now."""

    operations: int = -1
    journal: bytes | None = None
    revision: int = 0
    had_champion: set[str] = field(default_factory=set)
    snapshot: DeviceSnapshot | None = None
    boots: int = 0
    champions: set[str] = field(default_factory=set)
    """Digests that ever were champion here."""
    tried: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By slot: the version whose runner was started last, and which try of it that was."""


class DeviceLaws:
    def __init__(self, loop: EventLoop, breaches: Breaches) -> None:
        self._loop = loop
        self._breaches = breaches
        self._known: dict[str, _Known] = {}
        self._fresh: list[tuple[str, str]] = []

    def champions_of(self, device_id: str) -> frozenset[str]:
        known = self._known.get(device_id)
        return frozenset(known.champions) if known else frozenset()

    def new_champions(self) -> tuple[tuple[str, str], ...]:
        """Device and digest, each once."""
        fresh, self._fresh = tuple(self._fresh), []
        return fresh

    def touched(self, host: DeviceHost) -> None:
        """Something happened on the device."""
        known = self._known.setdefault(host.spec.id, _Known())
        if host.ended_by is How.RAISED:
            self._tell("EL-INV-9", host, f"the agent raised {host.ended_detail}")
        if known.operations != host.power.operations:
            known.operations = host.power.operations
            self._check_disk(host, known)
        self._check_process(host, known)

    def runner_started(self, host: DeviceHost, runner: VirtualRunner) -> None:
        """EL-INV-2, at the moment of the start."""
        for version in (runner.version, runner.shadow):
            if version is not None:
                problem = self._unsound(host, version, durable=False)
                if problem:
                    self._tell("EL-INV-2", host, f"a runner was started on {version}: {problem}")
        if runner.budget is None:
            self._check_try(host, runner)
        else:
            self._check_challenger(host, runner)

    def _check_challenger(self, host: DeviceHost, runner: VirtualRunner) -> None:
        """EL-INV-15, and EL-INV-10 of its tries."""
        device, document = host.device, host.power.disk.durable(JOURNAL)
        if device is None or JOURNAL in host.power.damaged:
            return
        others = [other for other in host.runners if other is not runner]
        if any(other.budget is not None and not other.exiting for other in others):
            self._tell("EL-INV-15", host, f"{runner.version} is not the only challenger")
        if not any(other.serving_since is not None and not other.exiting for other in others):
            self._tell("EL-INV-15", host, f"{runner.version} challenges while nothing serves")
        journal = decode_known(document) if document is not None else DeviceSnapshot()
        held = next((slot for slot in journal.slots if slot.slot == runner.slot), None)
        challenge = held.challenge if held is not None else None
        if held is not None and held.state in TRYING:
            self._tell("EL-INV-15", host, f"{runner.version} challenges beside a trial")
        counted = challenge is not None and challenge.challenger.offer.ref == runner.version
        attempts = challenge.attempts if challenge is not None else 0
        if not counted or not 1 <= attempts <= host.config.limits.attempts_max:
            self._tell(
                "EL-INV-10", host, f"{runner.version} challenges; its journal says {attempts}"
            )

    def _check_try(self, host: DeviceHost, runner: VirtualRunner) -> None:
        """EL-INV-10, by what a power cut at this moment would leave."""
        device, document = host.device, host.power.disk.durable(JOURNAL)
        if device is None or JOURNAL in host.power.damaged:
            return
        digest, name = runner.version.manifest_digest, runner.slot
        now = next(slot for slot in device.snapshot().slots if slot.slot == name)
        if now.champion is not None and now.champion.manifest_digest == digest:
            return
        journal = decode_known(document) if document is not None else DeviceSnapshot()
        held = next((slot for slot in journal.slots if slot.slot == name), None)
        candidate = held.candidate if held is not None else None
        if candidate is None or candidate.offer.manifest_digest != digest:
            self._tell("EL-INV-10", host, f"tries {runner.version}, which no journal holds")
            return
        tried = self._known[host.spec.id].tried
        before, attempts = tried.get(name, ("", 0)), candidate.attempts
        counted = attempts > (before[1] if before[0] == digest else 0)
        if not counted or attempts > host.config.limits.attempts_max:
            self._tell("EL-INV-10", host, f"tries {runner.version}; its journal says {attempts}")
        tried[name] = (digest, attempts)

    # ---- the disk -------------------------------------------------------------------------------

    def _check_disk(self, host: DeviceHost, known: _Known) -> None:
        document = host.power.disk.durable(JOURNAL)
        if document is not known.journal:
            known.journal = document
            self._check_journal(host, known, document)
        if document is not None:
            self._check_champions(host, document)

    def _check_journal(self, host: DeviceHost, known: _Known, document: bytes | None) -> None:
        damaged = JOURNAL in host.power.damaged
        try:
            journal = decode_known(document) if document is not None else DeviceSnapshot()
        except JournalDamagedError as error:
            if not damaged:
                self._tell("EL-INV-1", host, f"the journal is damaged: {error}")
            return
        if document is not None and len(document) > JOURNAL_MAX_BYTES:
            self._tell("EL-INV-8", host, f"a journal of {len(document)} bytes")
        held = {slot.slot for slot in journal.slots if slot.champion is not None}
        # Also of a life that ended within the turn of its commit.
        self._remember(host, known, journal)
        if damaged:
            host.power.damaged.discard(JOURNAL)  # it is whole, be it anew
        else:
            if journal.revision < known.revision:
                self._tell(
                    "EL-INV-4", host, f"revision {journal.revision} after {known.revision}, on disk"
                )
            for slot in sorted(known.had_champion - held):
                self._tell("EL-INV-1", host, f"slot {slot} had a champion and has none")
        known.revision, known.had_champion = journal.revision, held
        for underway in journal.slots:
            offer = underway.candidate.offer if underway.candidate is not None else None
            tried, _ = known.tried.get(underway.slot, ("", 0))
            if offer is None or offer.manifest_digest != tried:
                known.tried.pop(underway.slot, None)  # those tries have an end

    def _remember(self, host: DeviceHost, known: _Known, snapshot: DeviceSnapshot) -> None:
        for digest in sorted(_champions(snapshot) - known.champions):
            known.champions.add(digest)
            self._fresh.append((host.spec.id, digest))

    def _check_champions(self, host: DeviceHost, document: bytes) -> None:
        try:
            journal = decode_known(document)
        except JournalDamagedError:
            return
        for slot in journal.slots:
            if slot.champion is not None:
                problem = self._unsound(host, slot.champion, durable=True)
                if problem:
                    self._tell("EL-INV-1", host, f"champion {slot.champion}: {problem}")

    def _unsound(self, host: DeviceHost, version: VersionRef, durable: bool) -> str:
        """What is wrong with a version's files, in words; nothing for what the medium changed."""
        digest = version.manifest_digest
        where = "on the disk" if not durable else "that a power cut would leave"
        manifest = self._content(host, manifest_path(digest), digest, durable)
        if isinstance(manifest, str):
            return f"its manifest {where} {manifest}"
        if manifest is None:
            return ""
        artifact = parse_known(manifest).artifact.digest
        model = self._content(host, model_path(digest), artifact, durable)
        return f"its model {where} {model}" if isinstance(model, str) else ""

    def _content(
        self, host: DeviceHost, path: str, digest: str, durable: bool
    ) -> bytes | str | None:
        """The bytes, what is wrong with them, or None where the medium is to blame."""
        disk, damaged = host.power.disk, host.power.damaged
        content = disk.durable(path) if durable else disk.content(path)
        if content is not None and _sha256(content) == digest:
            damaged.discard(path)
            return content
        if path in damaged:
            return None
        return "is not there" if content is None else "has other bytes"

    # ---- the process ----------------------------------------------------------------------------

    def _check_process(self, host: DeviceHost, known: _Known) -> None:
        snapshot = host.snapshot
        if snapshot is None:
            known.snapshot = None
            return
        if known.boots != host.boots:
            known.boots, known.snapshot = host.boots, None
        before = known.snapshot
        if snapshot is not before:
            if before is not None and snapshot.revision < before.revision:
                self._tell("EL-INV-4", host, f"{snapshot.revision} after {before.revision}")
            self._check_commits(host, before, snapshot)
            self._check_refusals(host, snapshot)
            known.snapshot = snapshot
            self._remember(host, known, snapshot)
        self._check_served(host, snapshot)
        self._check_queues(host)

    def _check_commits(
        self, host: DeviceHost, before: DeviceSnapshot | None, after: DeviceSnapshot
    ) -> None:
        was = {slot.slot: slot for slot in before.slots} if before is not None else None
        if was is None:
            return  # what it woke up with was committed in another life
        for slot in after.slots:
            old = was.get(slot.slot)
            if slot.champion and (old is None or slot.champion != old.champion):
                self._check_proof(host, slot.champion.ref, old)

    def _check_proof(self, host: DeviceHost, version: VersionRef, old: SlotSnapshot | None) -> None:
        """EL-INV-3: by what the runner did, not by what was said of it."""
        candidate = old.candidate if old is not None else None
        runner = next(
            (r for r in reversed(host.trials.values()) if r.version == version and not r.exiting),
            None,
        )
        if candidate is None or runner is None or runner.serving_since is None:
            self._tell("EL-INV-3", host, f"{version} was committed without having served")
            return
        terms, served_s = candidate.probation, self._loop.now_s - runner.serving_since
        if served_s < terms.min_s - CLOCK_ERROR_S or runner.examples < terms.min_examples:
            self._tell(
                "EL-INV-3",
                host,
                f"{version} was committed after {served_s:.1f} s and {runner.examples} examples; "
                f"it must be {terms.min_s:g} s and {terms.min_examples}",
            )
        if runner.nonfinite:
            self._tell("EL-INV-3", host, f"{version} was committed though it gave NaN or Inf")

    def _check_refusals(self, host: DeviceHost, snapshot: DeviceSnapshot) -> None:
        """EL-INV-11."""
        for slot in snapshot.slots:
            blamed = slot.candidate.corrupt_fetches if slot.candidate is not None else 0
            if slot.refused is not None and slot.refused.cause == CORRUPT:
                blamed = max(blamed, host.config.limits.corrupt_fetches_max)
            if blamed > host.spoilt:
                self._tell(
                    "EL-INV-11",
                    host,
                    f"{blamed} times wrong bytes are held against a version; there were "
                    f"{host.spoilt}",
                )
            if slot.refused is not None and slot.refused.cause == UNUSABLE:
                self._tell("EL-INV-11", host, f"{slot.refused.version}: {slot.refused.detail}")

    def _check_served(self, host: DeviceHost, snapshot: DeviceSnapshot) -> None:
        """EL-INV-1, its second half."""
        now = self._loop.now_s
        if (
            any(r.serving_since is not None and r.budget is None for r in host.runners)
            or not any(slot.champion is not None for slot in snapshot.slots)
            or host.power.damaged
            or host.is_disk_ill
        ):
            host.served_at = now
        elif now - host.served_at > UNSERVED_S_MAX:
            self._tell("EL-INV-1", host, f"nothing serves since {host.served_at:.1f} s")

    def _check_queues(self, host: DeviceHost) -> None:
        if host.inbox_size > EVENT_QUEUE_MAX + FETCHES_WAITING_MAX:
            self._tell("EL-INV-8", host, f"{host.inbox_size} events wait in the inbox")
        if host.fetches_waiting > FETCHES_WAITING_MAX:
            self._tell("EL-INV-8", host, f"{host.fetches_waiting} fetches wait")
        if host.outbox is not None:
            totals = host.outbox.totals()
            if totals.held > 1 and totals.held_bytes > host.config.telemetry.outbox_max_bytes:
                self._tell("EL-INV-8", host, f"{totals.held_bytes} bytes in the outbox")
            if not totals.held:
                host.emptied_at = self._loop.now_s

    def _tell(self, law: str, host: DeviceHost, detail: str) -> None:
        self._breaches.tell(law, host.spec.id, detail)


def _champions(snapshot: DeviceSnapshot) -> set[str]:
    return {slot.champion.manifest_digest for slot in snapshot.slots if slot.champion}


@lru_cache(maxsize=DIGESTS_KEPT_MAX)
def decode_known(document: bytes) -> DeviceSnapshot:
    return decode_journal(document)
