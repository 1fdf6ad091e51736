"""What holds for the device's core in any world: faults, restarts and offers in any order."""

import pytest
from device_bench import INVENTORY
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import Challenge, DeviceSnapshot, SlotSnapshot
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import (
    Challenger,
    Desired,
    Probation,
    SlotDesired,
)

TRYING = {SlotState.SELF_TEST, SlotState.ACTIVATING, SlotState.PROBATION}
TERMS = Probation(min_s=1, min_examples=1, max_s=30)
FAULTS = ("offer", "fetch_fails", "runner_fails", "tick", "reboot", "link", "disk", "calm")
ACTIONS = (*FAULTS, *("fetch", "runner") * 4)


class World:
    """Answers the device's effects as adapters would, and checks what must always hold."""

    def __init__(self, packages, journal=None):
        self.packages = packages
        self.by_digest = {p.manifest.digest(): p for p in packages}
        self.now = 0.0
        self.journal = journal or DeviceSnapshot()
        self.revision = self.journal.revision
        self.disk_is_full = False
        self.boot()

    def boot(self):
        self.unsaved = None
        self.fetches = []
        self.runners = {}
        self.phase = {}
        self.passed = set()
        self.source = None
        self.fed = {}
        self.on_disk = getattr(
            self, "on_disk", set(self.by_digest) if self.journal.slots else set()
        )
        self.device = Device(("main",), self.journal, CoreSettings(), lambda: 0.5)
        self.say(ev.Started())

    def say(self, event):
        if isinstance(event, ev.ArtifactFetched):
            self.on_disk.add(event.digest)
        for effect in self.device.handle(event, self.now):
            self.perform(effect)

    def perform(self, effect):
        match effect:
            case do.PersistJournal():
                assert effect.snapshot.revision >= self.journal.revision
                before, after = self.slot_of(self.journal), self.slot_of(effect.snapshot)
                if before and before.champion:
                    assert after.champion, "once committed, there is always something to run"
                if after.candidate:
                    assert after.candidate.attempts <= CoreSettings().attempts_max
                self.unsaved = effect.snapshot
                self.sync()
            case do.FetchManifest() | do.FetchArtifact():
                self.fetches.append(effect)
            case do.CollectGarbage():
                slot = self.slot_of(self.journal)
                if slot and slot.champion:
                    assert slot.champion.manifest_digest in effect.keep_manifests
                self.on_disk &= effect.keep_manifests
            case _:
                self.perform_on_runner(effect)

    def perform_on_runner(self, effect):
        match effect:
            case do.StartRunner():
                self.check_start(effect)
                self.runners[effect.runner] = effect
                self.phase[effect.runner] = "starting"
            case do.Go():
                version = self.runners[effect.runner].version
                # A commit that a full disk keeps from the journal is a commit all the same.
                committed = self.is_champion(version)
                assert committed or effect.runner in self.passed, "only what passed gets it"
                assert self.source is None, "one runner has the source at a time"
                self.source = effect.runner
                self.phase[effect.runner] = "go"
            case do.Mirror():
                assert self.runners[effect.challenger].budget is not None
                assert self.source == effect.runner, "who has the source feeds it"
                assert self.phase[effect.runner] == "serving"
                assert effect.challenger in self.passed
                self.fed[effect.challenger] = effect.runner
                self.phase[effect.challenger] = "go"
            case do.StopRunner():
                self.phase[effect.runner] = "stopping"

    def check_challenger(self, start):
        assert start.shadow is None
        slot = self.slot_of(self.journal)
        assert slot.challenge.challenger.offer.ref == start.version, "journalled before"
        assert 1 <= slot.challenge.attempts <= CoreSettings().attempts_max, "counted before"
        assert slot.state not in TRYING, "nothing runs beside a trial"
        others = [one for one in self.runners.values() if one.budget is not None]
        assert not others, "one at a time"

    def check_start(self, start):
        version = start.version
        assert version.manifest_digest in self.on_disk, "only what was verified is started"
        slot = self.slot_of(self.journal)
        if start.budget is not None:
            self.check_challenger(start)
        elif not self.is_champion(version):
            assert slot.candidate.offer.ref == version, "journalled before"
            assert slot.state in TRYING
            assert slot.candidate.attempts >= 1, "counted before it is tried"

    def is_champion(self, version):
        champion = self.slot_of(self.device.snapshot()).champion
        return champion is not None and champion.ref == version

    def sync(self):
        """Save what waits for the disk, if it takes anything."""
        if self.unsaved is None:
            return
        if self.disk_is_full:
            self.say(ev.JournalFailed("no space"))
            return
        self.journal, self.unsaved = self.unsaved, None
        self.say(ev.JournalSaved(self.journal))

    def disk(self, choice):
        self.disk_is_full = choice % 2 == 0
        self.sync()

    @staticmethod
    def slot_of(snapshot):
        return snapshot.slots[0] if snapshot.slots else None

    def act(self, action, choice):
        self.now += 0.1
        getattr(self, action)(choice)

    def offer(self, choice):
        self.revision += choice % 3  # sometimes a revision that was seen already
        package = self.packages[choice % 4] if choice % 4 < 3 else None
        slot = SlotDesired(
            slot="main",
            offer=package.offer if package else None,
            probation=TERMS,
            challenger=self.challenger_of(choice // 4),
        )
        revision = max(0, self.revision - choice % 2)  # and sometimes an older one
        before = self.journal
        self.say(ev.DesiredReceived(Desired(revision=revision, slots=(slot,))))
        assert revision > before.revision or self.journal == before or self.unsaved

    def challenger_of(self, choice):
        return Challenger(offer=self.packages[choice % 4].offer) if choice % 4 < 3 else None

    def fetch(self, choice):
        if not self.fetches:
            return
        fetch = self.fetches.pop(choice % len(self.fetches))
        digest = fetch.offer.manifest_digest
        if isinstance(fetch, do.FetchManifest):
            manifest = self.by_digest[digest].manifest
            self.say(ev.ManifestFetched("main", digest, manifest, INVENTORY, False))
        else:
            self.say(ev.ArtifactFetched("main", digest))

    def fetch_fails(self, choice):
        if self.fetches:
            fetch = self.fetches.pop(choice % len(self.fetches))
            problem = list(ev.FetchProblem)[choice % 3]
            self.say(ev.FetchFailed("main", fetch.offer.manifest_digest, problem, "x"))

    def runner(self, choice):
        if not self.runners:
            return
        number = sorted(self.runners)[choice % len(self.runners)]
        phase = self.phase[number]
        if phase == "starting":
            self.passed.add(number)
            self.phase[number] = "ready"
            self.say(ev.RunnerSelfTested("main", number, True, ""))
        elif phase == "go":
            self.phase[number] = "serving"
            self.say(ev.RunnerServing("main", number))
        elif phase == "serving":
            self.now += 1
            progress = ev.Progress(
                examples=choice,
                nonfinite=int(choice == 13),
                memory_bytes=2 * 10**9 if choice == 17 else 0,
            )
            self.say(ev.RunnerProgressed("main", number, progress))
        elif phase == "stopping":
            self.exits(number)

    def runner_fails(self, choice):
        if not self.runners:
            return
        number = sorted(self.runners)[choice % len(self.runners)]
        if self.phase[number] == "starting" and choice % 2:
            self.say(ev.RunnerSelfTested("main", number, False, "off by 1"))
        else:
            self.exits(number)

    def exits(self, number):
        del self.runners[number]
        if self.source == number:
            self.source = None
        self.say(ev.RunnerExited("main", number, "exit status 1"))

    def tick(self, choice):
        self.now += choice
        self.say(ev.Tick())
        deadline = self.device.next_deadline()
        assert deadline is None or deadline > self.now, "a supervisor would spin"

    def reboot(self, choice):
        if choice % 2 == 0:
            self.boot()

    def link(self, choice):
        self.say(ev.BrokerConnected() if choice % 2 else ev.BrokerDisconnected())

    def calm(self, choice):
        if choice % 2:
            self.calm_down()

    def calm_down(self):
        """Nothing fails any more: returns how many steps it took until all was at rest."""
        self.disk(1)
        for step in range(200):
            slot = self.slot_of(self.journal)
            serving = any(
                self.phase[n] == "serving" for n, r in self.runners.items() if r.budget is None
            )
            at_rest = slot is None or (slot.candidate is None and (serving or not slot.champion))
            if at_rest and (not serving or self.challenger_is_at_rest(slot)):
                return step
            if self.fetches:
                self.fetch(0)
            for number in sorted(self.runners):
                if number in self.runners:
                    self.runner(sorted(self.runners).index(number))
                if self.phase.get(number) == "serving" and number in self.runners:
                    self.now += 2
                    self.say(ev.RunnerProgressed("main", number, ev.Progress(examples=50)))
            deadline = self.device.next_deadline()
            if not self.fetches and deadline is not None:
                self.now = max(self.now, min(deadline, self.now + 1))
                self.say(ev.Tick())
        pytest.fail(f"never at rest: {self.journal}")

    def challenger_is_at_rest(self, slot):
        challenge = slot.challenge
        if challenge is None or challenge.state is ChallengeState.REFUSED:
            return True
        if self.is_champion(challenge.challenger.offer.ref):
            return challenge.state is ChallengeState.STAGED
        feeders = [feeder for number, feeder in self.fed.items() if number in self.runners]
        return challenge.state is ChallengeState.IN_SHADOW and feeders == [self.source]


@settings(
    max_examples=400,
    deadline=None,
)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 20)), min_size=20, max_size=90))
def test_any_sequence_of_faults(make_package, actions):
    world = World(packages_of(make_package))
    for action, choice in actions:
        world.act(action, choice)
    world.calm_down()
    slot = world.slot_of(world.journal)
    if slot and slot.champion:
        answering = [r for r in world.runners.values() if r.budget is None]
        running = {runner.version.manifest_digest for runner in answering}
        assert slot.champion.manifest_digest in running


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((*FAULTS, *("runner", "fetch", "calm") * 3)), st.integers(0, 20)),
        min_size=10,
        max_size=60,
    )
)
def test_any_sequence_of_faults_around_a_challenger(make_package, actions):
    packages = packages_of(make_package)
    challenge = Challenge(
        challenger=Challenger(offer=packages[1].offer), state=ChallengeState.IN_SHADOW
    )
    slot = SlotSnapshot(
        slot="main",
        state=SlotState.COMMITTED,
        champion=packages[0].offer,
        challenge=challenge,
    )
    world = World(packages, DeviceSnapshot(revision=1, slots=(slot,)))
    world.calm_down()
    assert world.fed, "it came into the shadow"
    for action, choice in actions:
        world.act(action, choice)
    world.calm_down()
    slot = world.slot_of(world.journal)
    running = {r.version.manifest_digest for r in world.runners.values() if r.budget is None}
    assert slot.champion.manifest_digest in running


_PACKAGES = []


def packages_of(make_package):
    if not _PACKAGES:
        _PACKAGES.extend(make_package(str(number)) for number in range(3))
    return _PACKAGES
