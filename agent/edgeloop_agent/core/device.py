"""A device: all its slots, the revision it has, and what it tells the controller.

Invariants: `handle` is the only way in; the revision only grows; what rests on a transition is done
after JournalSaved, so that a disk that takes nothing holds back candidates and nothing else; what
the controller would see is reported when it changed, and in answer to every desired state, so that
a controller that was away learns what happened meanwhile.
"""

from collections.abc import Callable, Iterable

from edgeloop_agent.core.effects import (
    AnswerRequest,
    AppendEvent,
    CollectGarbage,
    Effect,
    PersistJournal,
    SendHello,
    SendReported,
)
from edgeloop_agent.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    CaptureAsked,
    DesiredReceived,
    Event,
    JournalFailed,
    JournalSaved,
    RestartRunnerAsked,
    SlotEvent,
    Started,
    Tick,
)
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.siblings import Siblings
from edgeloop_agent.core.slot import Slot
from edgeloop_agent.core.snapshot import DeviceSnapshot, SlotSnapshot
from edgeloop_protocol.lifecycle import ChallengeState
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import Desired, SlotDesired, SlotReported


class Device:
    """`slots`: the configured names; the journal may know others, which are kept but rest."""

    def __init__(
        self,
        slots: Iterable[str],
        snapshot: DeviceSnapshot,
        settings: CoreSettings,
        jitter: Callable[[], float],
    ) -> None:
        known = {slot.slot: slot for slot in snapshot.slots}
        names = list(dict.fromkeys(slots))
        self._slots = {
            name: Slot(known.get(name, SlotSnapshot(slot=name)), settings, jitter) for name in names
        }
        self._siblings = Siblings(settings.siblings_wait_s_max)
        self._resting = tuple(slot for name, slot in known.items() if name not in self._slots)
        self._revision = snapshot.revision
        self._asked_to_persist = self._journalled = snapshot
        self._journal_problem = ""
        self._kept = self._garbage()
        self._kept_for: DeviceSnapshot | None = None
        self._said: tuple[int, tuple[SlotReported, ...]] = (self._revision, ())
        self._connected = False
        self.stale_desired = 0

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def connected(self) -> bool:
        return self._connected

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """What is to be done, in this order; `now` is monotonic, in seconds."""
        effects = self._take(event, now)
        return self._in_order(effects, now, event)

    def _take(self, event: Event, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(event, Started):
            for slot in self._slots.values():
                slot.recover()
            effects.append(self._kept)
        elif isinstance(event, Tick):
            for slot in self._slots.values():
                slot.tick(now)
        elif isinstance(event, JournalSaved | JournalFailed):
            self._mind_journal(event)
        elif isinstance(event, BrokerConnected):
            self._connected = True
            self._said = (self._revision, self.reported())
            effects.append(SendHello(*self._said))
        elif isinstance(event, BrokerDisconnected):
            self._connected = False
        elif isinstance(event, DesiredReceived):
            effects += self._desire(event.desired)
        elif isinstance(event, RestartRunnerAsked | CaptureAsked):
            effects.append(self._answer(event, now))
        else:
            self._hand_on(event, now)
        return effects

    def _hand_on(self, event: SlotEvent, now: float) -> None:
        if event.slot in self._slots:
            self._slots[event.slot].handle(event, now)

    def next_deadline(self) -> float | None:
        """When to call `handle(Tick())` at the latest; None: nothing is timed."""
        soonest = self._siblings.next_deadline()
        for slot in self._slots.values():
            time = slot.next_deadline()
            if time is not None and (soonest is None or time < soonest):
                soonest = time
        return soonest

    def reported(self) -> tuple[SlotReported, ...]:
        problem = self._journal_problem
        return tuple([slot.reported(problem) for slot in self._slots.values()])

    def snapshot(self) -> DeviceSnapshot:
        """The same object while nothing that it holds has changed."""
        slots = (*[slot.durable for slot in self._slots.values()], *self._resting)
        known = self._asked_to_persist
        if known.revision == self._revision and known.slots == slots:
            return known
        return DeviceSnapshot(revision=self._revision, slots=slots)

    def _desire(self, desired: Desired) -> list[Effect]:
        if desired.revision <= self._revision:
            self.stale_desired += 1
            return []
        self._revision = desired.revision
        wanted = {slot.slot: slot for slot in desired.slots}
        for name, slot in self._slots.items():
            slot.desire(wanted.get(name, SlotDesired(slot=name)))
        unknown = sorted(set(wanted) - set(self._slots))
        return [
            AppendEvent("unknown_slot", name, None, "no such slot is configured on this device")
            for name in unknown
        ]

    def _answer(self, event: RestartRunnerAsked | CaptureAsked, now: float) -> AnswerRequest:
        slot = self._slots.get(event.slot)
        if slot is None:
            known = ", ".join(self._slots)
            done, detail = False, f"no slot {event.slot} here, only {known}"
        elif isinstance(event, CaptureAsked):
            done, detail = slot.capture(event.examples)
        else:
            done, detail = slot.restart_runner(now)
        return AnswerRequest(event.request, done, detail)

    def _mind_journal(self, event: JournalSaved | JournalFailed) -> None:
        if isinstance(event, JournalFailed):
            self._journal_problem = f"journal: {event.detail}"[:TEXT_MAX_CHARS]
            return
        self._journalled, self._journal_problem = event.snapshot, ""
        for slot in event.snapshot.slots:
            if slot.slot in self._slots:
                self._slots[slot.slot].journalled = slot

    def _in_order(self, effects: list[Effect], now: float, event: Event) -> tuple[Effect, ...]:
        for name, why in self._siblings.look(self._slots, now).items():
            self._slots[name].try_or_wait(why)
        for slot in self._slots.values():
            effects += slot.settle(now)
        snapshot = self.snapshot()
        if snapshot is not self._asked_to_persist:
            self._asked_to_persist = snapshot
            effects.insert(0, PersistJournal(snapshot))
        if snapshot is self._journalled and self._kept_for is not snapshot:
            self._kept_for, garbage = snapshot, self._garbage()
            if garbage != self._kept:
                self._kept = garbage
                effects.append(garbage)
        says = (self._revision, self.reported())
        answers = isinstance(event, DesiredReceived)
        if answers or (self._connected and says != self._said):
            self._said = says
            wants_hello = isinstance(event, DesiredReceived) and event.desired.wants_hello
            effects.append(SendHello(*says) if wants_hello else SendReported(*says))
        return tuple(effects)

    def _garbage(self) -> CollectGarbage:
        manifests: set[str] = set()
        artifacts: set[str] = set()
        for slot in (*(slot.durable for slot in self._slots.values()), *self._resting):
            for version in (slot.champion, slot.previous):
                if version is not None:
                    manifests.add(version.manifest_digest)
                    artifacts.add(version.artifact_digest)  # of a repair
            challenge = slot.challenge
            if challenge is not None and challenge.state is not ChallengeState.REFUSED:
                manifests.add(challenge.challenger.offer.manifest_digest)
                artifacts.add(challenge.challenger.offer.artifact_digest)
            if slot.candidate is not None:
                manifests.add(slot.candidate.offer.manifest_digest)
                artifacts.add(slot.candidate.offer.artifact_digest)
                if slot.candidate.offer.patch is not None:
                    artifacts.add(slot.candidate.offer.patch.digest)
        return CollectGarbage(frozenset(manifests), frozenset(artifacts))
