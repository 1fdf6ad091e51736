"""A device under attack: the real core, fetcher, gate and TUF client; broker, mirror and controller
are the attacker's."""

from device_bench import INVENTORY, Bench
from trust_repository import NOW, Mirror, VerifyingTrust

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch import perform
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.trust_gate import TrustGate
from edgeloop_agent.trust.metadata_store import MetadataStore
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Desired, SlotDesired
from edgeloop_simulators.twins.artifact_source import MemoryArtifactSource
from edgeloop_simulators.twins.disk import MemoryDisk

STEPS_MAX = 20


class Victim:
    """`mirror` serves metadata, `artifacts` serve the rest, `desire` is the broker."""

    def __init__(self, repository, labels=None):
        self.repository = repository
        self.mirror = Mirror(dict(repository.files))
        self.artifacts = MemoryArtifactSource({})
        kept = MetadataStore(MemoryDisk())
        kept.begin(repository.files["1.root.json"])
        self.trust = VerifyingTrust(kept, self.mirror, NOW)
        self._gate = TrustGate(self.trust, "dev1", labels or {"site": "field"})
        self._downloader = Downloader(self.artifacts, ModelStore(MemoryDisk()), 0)
        self.bench = Bench(settings=CoreSettings(signed_only=True))
        self.bench.device.handle(ev.BrokerConnected(), self.bench.now)

    def sees(self, files=None):
        """The mirror serves these from now on; default: what the repository has now."""
        self.mirror.files = dict(self.repository.files if files is None else files)

    def installs(self, package, revision=None):
        """Whether a version that the broker offers, with all of its bytes, ends up running."""
        self.artifacts.artifacts |= package.artifacts
        self.bench.revision = self.bench.revision + 1 if revision is None else revision
        slots = (SlotDesired(slot="main", offer=package.offer),)
        desired = Desired(revision=self.bench.revision, slots=slots)
        performed = list(self.bench.say(ev.DesiredReceived(desired)))
        for _ in range(STEPS_MAX):
            for effect in performed:
                event = self._answer(effect)
                if event is not None:
                    performed = list(self.bench.say(event))
                    break
            else:
                break
        slot = self.bench.slot
        return slot.state is SlotState.COMMITTED and slot.champion == package.offer.ref

    @property
    def words(self):
        """Why not, as it is reported."""
        slot = self.bench.slot
        return slot.waiting or (f"{slot.refused.cause}: {slot.refused.detail}")

    @property
    def fetched(self):
        """Digests of which it asked for bytes."""
        return {digest for digest, _ in self.artifacts.opened}

    def _answer(self, effect):
        match effect:
            case do.FetchManifest() | do.FetchArtifact():
                return perform(
                    effect, self._downloader, lambda: INVENTORY, lambda: False, gate=self._gate
                )
            case do.StartRunner():
                return ev.RunnerSelfTested("main", effect.runner, True, "")
            case do.StopRunner():
                return ev.RunnerExited("main", effect.runner, "exit status 0")
            case do.Go():
                self.bench.say(ev.RunnerServing("main", effect.runner))
                self.bench.now += 60
                return ev.RunnerProgressed("main", effect.runner, ev.Progress(examples=100))
        return None
