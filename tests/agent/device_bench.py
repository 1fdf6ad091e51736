"""A device's core with a hand on its clock, its journal and its revision."""

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.device import Device
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Desired, Inventory, Probation, RuntimeInfo, SlotDesired

INVENTORY = Inventory(
    agent_version="0",
    architecture="x86_64",
    python="3.11",
    runtimes=(RuntimeInfo(name="onnx", version="1"),),
    memory_bytes=10**9,
    disk_free_bytes=10**9,
    cpu_count=1,
)
TERMS = Probation(min_s=1, min_examples=10, max_s=50)
GOOD = ev.Progress(examples=10, latency_p95_us=100.0)


class Bench:
    """A device with a hand on its clock; `performed` is what the last event led to."""

    def __init__(self, snapshot=None, settings=None):
        self.device = Device(
            ("main",), snapshot or DeviceSnapshot(), settings or CoreSettings(), lambda: 0.5
        )
        self.now = 100.0
        self.performed = ()
        self.disk_is_full = False
        self.journal = snapshot or DeviceSnapshot()
        self.revision = 0
        self.at_start = self.say(ev.Started())
        self.say(ev.BrokerConnected())

    def say(self, event):
        effects = self.device.handle(event, self.now)
        persists = [i for i, e in enumerate(effects) if isinstance(e, do.PersistJournal)]
        assert persists in ([], [0]), "the journal comes first"
        self.performed = effects
        if persists and self.disk_is_full:
            self.performed += self.device.handle(ev.JournalFailed("no space"), self.now)
        elif persists:
            self.save(effects[0].snapshot)
        return self.performed

    def save(self, snapshot):
        self.journal = snapshot
        more = self.device.handle(ev.JournalSaved(snapshot), self.now)
        assert not any(isinstance(effect, do.PersistJournal) for effect in more)
        self.performed += more

    def mend_disk(self):
        self.disk_is_full, self.performed = False, ()
        self.save(self.device.snapshot())

    def only(self, kind):
        return self.only_of(self.performed, kind)

    @staticmethod
    def only_of(performed, kind):
        found = [effect for effect in performed if isinstance(effect, kind)]
        assert len(found) == 1, (kind, performed)
        return found[0]

    def has(self, kind):
        return any(isinstance(effect, kind) for effect in self.performed)

    def offer(self, package, terms=TERMS):
        self.revision += 1
        offer = package.offer if package else None
        slots = (SlotDesired(slot="main", offer=offer, probation=terms),)
        return self.say(ev.DesiredReceived(Desired(revision=self.revision, slots=slots)))

    def manifest(self, package):
        digest = package.manifest.digest()
        return self.say(ev.ManifestFetched("main", digest, package.manifest, INVENTORY, False))

    def artifact(self, package):
        return self.say(ev.ArtifactFetched("main", package.manifest.digest()))

    def to_self_test(self, package):
        self.offer(package)
        self.manifest(package)
        self.artifact(package)
        return self.only(do.StartRunner).runner

    def to_probation(self, package):
        """Returns the candidate's runner, having the source."""
        runner = self.to_self_test(package)
        self.say(ev.RunnerSelfTested("main", runner, True, ""))
        if self.has(do.StopRunner):
            old = self.only(do.StopRunner).runner
            assert not self.has(do.Go), "the source is not free yet"
            self.say(ev.RunnerExited("main", old, "exit status 0"))
        assert self.only(do.Go).runner == runner
        self.say(ev.RunnerServing("main", runner))
        assert self.slot.state is SlotState.PROBATION
        return runner

    def commit(self, package):
        runner = self.to_probation(package)
        self.now += 1.5
        self.say(ev.RunnerProgressed("main", runner, GOOD))
        assert self.slot.state is SlotState.COMMITTED
        return runner

    def wait(self):
        """Until the next deadline."""
        self.now = self.device.next_deadline()
        return self.say(ev.Tick())

    @property
    def slot(self):
        return self.device.reported()[0]

    @property
    def durable(self):
        return self.journal.slots[0]
