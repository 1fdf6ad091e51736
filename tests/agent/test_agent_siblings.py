"""Several slots download before any switches: who waits for whom, and that no wait is for ever."""

import pytest
from device_bench import INVENTORY
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.lifecycle import transitions_max
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.siblings import BOOTS_HELD_MAX
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Requirements
from edgeloop_protocol.messages import Desired, Probation, SlotDesired

SLOTS = ("a", "b", "c")
TERMS = Probation(min_s=1, min_examples=1, max_s=30)
WAIT_S = 1000.0
FETCHING = {SlotState.VERIFIED, SlotState.DOWNLOADING}
RESTS = {SlotState.IDLE, SlotState.COMMITTED, SlotState.ROLLED_BACK}


class World:
    """Answers a device of several slots as adapters would, and checks each first try."""

    def __init__(self, slots=SLOTS, wait_s=WAIT_S):
        self.slots = slots
        self.settings = CoreSettings(siblings_wait_s_max=wait_s)
        self.now, self.revision, self.packages = 0.0, 0, {}
        self.journal = DeviceSnapshot()
        self.staged_at = {}
        self.boot()

    def boot(self):
        self.fetches, self.runners, self.no_room = [], {}, set()
        self.device = Device(self.slots, self.journal, self.settings, lambda: 0.5)
        # Since when it waits is not known after a boot: the wait begins anew, and is counted.
        self.staged_at = {}
        self.say(ev.Started())

    def say(self, event):
        before = {one.slot: one for one in self.device.snapshot().slots}
        effects = self.device.handle(event, self.now)
        after = {one.slot: one for one in self.device.snapshot().slots}
        for name in self.slots:
            if name in after:
                self.check(name, before.get(name), after)
        for effect in effects:
            self.perform(effect)

    def check(self, name, before, after):
        now = after[name]
        if now.candidate is None:
            self.staged_at.pop(name, None)
            self.no_room.discard(name)
            return
        digest = now.candidate.offer.manifest_digest
        if before and before.candidate and before.candidate.offer.manifest_digest != digest:
            self.no_room.discard(name)
            self.staged_at.pop(name, None)
        if now.state is SlotState.STAGED:
            self.staged_at.setdefault(name, self.now)
        tried = now.state is SlotState.SELF_TEST and now.candidate.attempts == 1
        was = before.state if before else None
        if not tried or was is SlotState.SELF_TEST:
            return
        waited_s = self.now - self.staged_at.get(name, self.now)
        if waited_s < WAIT_S - 1e-6 and now.candidate.boots_held < BOOTS_HELD_MAX:
            coming = [other for other in self.slots if self.is_coming(after.get(other))]
            assert not coming, f"{name} is tried while {coming} are still downloaded"

    def is_coming(self, slot):
        return (
            slot is not None
            and slot.candidate is not None
            and slot.state in RESTS | FETCHING
            and slot.slot not in self.no_room
        )

    def perform(self, effect):
        match effect:
            case do.PersistJournal():
                self.journal = effect.snapshot
                self.say(ev.JournalSaved(self.journal))
            case do.FetchManifest() | do.FetchArtifact():
                self.fetches.append(effect)
            case do.StartRunner():
                self.runners[effect.slot, effect.runner] = "starting"
            case do.Go():
                self.runners[effect.slot, effect.runner] = "go"
            case do.StopRunner():
                self.runners[effect.slot, effect.runner] = "stopping"

    def slot(self, name):
        return next(one for one in self.device.reported() if one.slot == name)

    def wanted(self, **packages):
        """Desired, of the slots that are named; None: nothing new there."""
        self.revision += 1
        self.packages |= {p.manifest.digest(): p for p in packages.values() if p}
        desired = tuple(
            SlotDesired(slot=name, offer=package.offer if package else None, probation=TERMS)
            for name, package in packages.items()
        )
        self.say(ev.DesiredReceived(Desired(revision=self.revision, slots=desired)))

    def take(self, name, kind):
        found = next(f for f in self.fetches if f.slot == name and isinstance(f, kind))
        self.fetches.remove(found)
        return found.offer.manifest_digest

    def manifest(self, name):
        digest = self.take(name, do.FetchManifest)
        manifest = self.packages[digest].manifest
        if manifest.requires.memory_bytes > INVENTORY.memory_bytes:
            self.no_room.add(name)
        else:
            self.no_room.discard(name)
        self.say(ev.ManifestFetched(name, digest, manifest, INVENTORY, False))

    def artifact(self, name):
        self.say(ev.ArtifactFetched(name, self.take(name, do.FetchArtifact)))

    def stage(self, name):
        self.manifest(name)
        self.artifact(name)

    def fails(self, name, kind, problem=ev.FetchProblem.WAIT, for_room=False):
        digest = self.take(name, kind)
        (self.no_room.add if for_room else self.no_room.discard)(name)
        self.say(ev.FetchFailed(name, digest, problem, "x", for_room))

    def step(self, key):
        """One runner goes on to what follows."""
        slot, number = key
        phase = self.runners[key]
        if phase == "starting":
            self.runners[key] = "ready"
            self.say(ev.RunnerSelfTested(slot, number, True, ""))
        elif phase == "go":
            self.runners[key] = "serving"
            self.say(ev.RunnerServing(slot, number))
        elif phase == "serving":
            self.now += 2
            self.say(ev.RunnerProgressed(slot, number, ev.Progress(examples=50)))
        elif phase == "stopping":
            self.exits(key)

    def exits(self, key):
        del self.runners[key]
        self.say(ev.RunnerExited(*key, "exit status 1"))

    def wait(self):
        deadline = self.device.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.say(ev.Tick())
        again = self.device.next_deadline()
        assert again is None or again > self.now, "a supervisor would spin"

    def calm_down(self):
        """Nothing fails any more."""
        for _ in range(300):
            if all(one.candidate is None for one in self.device.snapshot().slots):
                return
            while self.fetches:
                fetch = self.fetches[0]
                kind = type(fetch)
                (self.manifest if kind is do.FetchManifest else self.artifact)(fetch.slot)
            for key in sorted(self.runners):
                if key in self.runners:
                    self.step(key)
            if not self.fetches and self.device.next_deadline() is not None:
                self.now = max(self.now, min(self.device.next_deadline(), self.now + 1))
                self.say(ev.Tick())
        pytest.fail(f"never at rest: {self.journal}")


@pytest.fixture
def packages(make_package):
    return [make_package(str(number)) for number in range(6)]


@pytest.fixture
def world():
    return World(("a", "b"))


def test_a_staged_slot_waits_for_its_sibling_and_both_are_tried_at_once(world, packages):
    world.wanted(a=packages[0], b=packages[1])
    world.stage("a")
    assert world.slot("a").state is SlotState.STAGED
    assert world.slot("a").waiting == "waiting for slot b to be downloaded"
    world.manifest("b")
    assert not world.runners
    world.artifact("b")
    assert {slot for slot, _ in world.runners} == {"a", "b"}
    assert not world.slot("a").waiting
    world.calm_down()


def test_several_that_are_waited_for_are_all_named(packages):
    world = World()
    world.wanted(a=packages[0], b=packages[1], c=packages[2])
    world.stage("b")
    assert world.slot("b").waiting == "waiting for slots a, c to be downloaded"


@pytest.mark.parametrize("how", ["unusable", "corrupt", "withdrawn", "no disk", "no memory"])
def test_a_sibling_whose_download_cannot_be_had_holds_nobody(world, packages, make_package, how):
    greedy = make_package("9", requires=Requirements(memory_bytes=2 * 10**9))
    world.wanted(a=packages[0], b=greedy if how == "no memory" else packages[1])
    world.stage("a")
    assert not world.runners
    if how == "unusable":
        world.fails("b", do.FetchManifest, ev.FetchProblem.UNUSABLE)
    elif how == "withdrawn":
        world.wanted(a=packages[0])
    elif how == "no memory":
        world.manifest("b")
        assert "memory" in world.slot("b").waiting
    elif how == "no disk":
        world.manifest("b")
        world.fails("b", do.FetchArtifact, for_room=True)
    else:
        world.manifest("b")
        for _ in range(2):
            world.fails("b", do.FetchArtifact, ev.FetchProblem.CORRUPT)
            assert not world.runners
            while not world.fetches:
                world.wait()
        world.fails("b", do.FetchArtifact, ev.FetchProblem.CORRUPT)
        assert world.slot("b").refused
    assert [slot for slot, _ in world.runners] == ["a"]


def test_a_link_that_is_away_holds_no_longer_than_the_limit(world, packages):
    world.wanted(a=packages[0], b=packages[1])
    world.stage("a")
    world.manifest("b")
    began = world.now
    while not world.runners:
        assert world.now <= began + WAIT_S
        if world.fetches:
            world.fails("b", do.FetchArtifact)
        world.wait()
    assert world.now == began + WAIT_S
    assert [slot for slot, _ in world.runners] == ["a"]


def test_without_a_limit_each_is_for_itself(packages):
    world = World(("a", "b"), wait_s=0.0)
    world.staged_at = dict.fromkeys(("a", "b"), -WAIT_S)
    world.wanted(a=packages[0], b=packages[1])
    world.manifest("a")
    world.staged_at["a"] = -WAIT_S
    world.artifact("a")
    assert [slot for slot, _ in world.runners] == ["a"]


def test_a_reboot_goes_on_waiting_and_boots_are_counted(world, packages):
    world.wanted(a=packages[0], b=packages[1])
    world.stage("a")
    for boot in range(1, BOOTS_HELD_MAX):
        world.boot()
        assert world.slot("a").waiting == "waiting for slot b to be downloaded"
        assert world.journal.slots[0].candidate.boots_held == boot
    world.boot()
    assert [slot for slot, _ in world.runners] == ["a"], "one that boots for ever goes on"
    world.calm_down()


def test_a_try_that_was_interrupted_does_not_wait_again(world, packages):
    world.wanted(a=packages[0])
    world.stage("a")
    world.wanted(a=packages[0], b=packages[1])
    world.boot()
    assert [slot for slot, _ in world.runners] == ["a"]


def test_another_version_of_a_slot_waits_from_its_own_beginning(world, packages):
    world.wanted(a=packages[0], b=packages[1])
    world.stage("a")
    world.now += 900
    world.wanted(a=packages[2], b=packages[1])
    world.stage("a")
    world.now += 900
    world.say(ev.Tick())
    assert not world.runners
    assert world.slot("a").waiting


ACTIONS = st.sampled_from(
    ("want", "fetch", "fetch", "fetch", "fail", "runner", "runner", "exit", "tick", "boot")
)


def act(world, action, choice, packages):
    world.now += 0.5
    name = world.slots[choice % len(world.slots)]
    if action == "want":
        some = {
            slot: packages[(choice // 3 + number) % len(packages)]
            for number, slot in enumerate(world.slots)
            if (choice >> number) & 1
        }
        world.wanted(**some)
    elif action == "fetch" and world.fetches:
        fetch = world.fetches[choice % len(world.fetches)]
        (world.manifest if isinstance(fetch, do.FetchManifest) else world.artifact)(fetch.slot)
    elif action == "fail" and world.fetches:
        fetch = world.fetches[choice % len(world.fetches)]
        problem = list(ev.FetchProblem)[choice % 3]
        for_room = problem is ev.FetchProblem.WAIT and choice % 2 == 0
        world.fails(fetch.slot, type(fetch), problem, for_room)
    elif action == "runner" and world.runners:
        world.step(sorted(world.runners)[choice % len(world.runners)])
    elif action == "exit" and world.runners:
        world.exits(sorted(world.runners)[choice % len(world.runners)])
    elif action == "tick":
        world.now += choice * choice
        world.say(ev.Tick())
        deadline = world.device.next_deadline()
        assert deadline is None or deadline > world.now, f"{name}: a supervisor would spin"
    elif action == "boot" and choice % 3 == 0:
        world.boot()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 30)), min_size=10, max_size=80))
def test_whatever_happens_no_slot_is_tried_before_its_siblings_are_there_or_given_up(
    make_package, actions
):
    world, packages = World(), packages_of(make_package)
    for action, choice in actions:
        act(world, action, choice, packages)
    world.calm_down()
    for slot in world.device.reported():
        assert not slot.waiting


_PACKAGES = []


def packages_of(make_package):
    if not _PACKAGES:
        _PACKAGES.extend(make_package(str(number)) for number in range(6))
        _PACKAGES.append(make_package("9", requires=Requirements(memory_bytes=10**9)))
    return _PACKAGES


def test_waiting_adds_no_transition(world, packages):
    """The bound of transitions an offer holds with siblings too: a wait is no move."""
    world.wanted(a=packages[0], b=packages[1])
    seen = []
    while world.journal.slots[0].candidate is not None or not seen:
        state = world.journal.slots[0].state
        if not seen or seen[-1] is not state:
            seen.append(state)
        if len(seen) > transitions_max(3) + 1:
            pytest.fail(f"{seen}")
        if world.fetches:
            fetch = world.fetches[0]
            (world.manifest if isinstance(fetch, do.FetchManifest) else world.artifact)(fetch.slot)
        elif world.runners:
            for key in sorted(world.runners):
                if key in world.runners:
                    world.step(key)
    assert len(seen) <= 8
