"""The supervisor over twins: the journal first, and a disk or a process table that refuses."""

import json
from types import SimpleNamespace

import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.core.snapshot import DeviceSnapshot, SlotSnapshot
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.run_loop import RunLoop
from edgeloop_agent.shell.status import StatusFile
from edgeloop_agent.shell.supervisor import JOURNAL_RETRY_S, Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.messages import Desired, Inventory, Offer, SlotDesired, encode
from edgeloop_protocol.topics import Down, device_subscription, down_topic
from edgeloop_simulators.twins.clock import SimulatedClock
from edgeloop_simulators.twins.journal import MemoryJournal
from edgeloop_simulators.twins.outbox import MemoryOutbox
from edgeloop_simulators.virtual.kernel.loop import EventLoop
from edgeloop_simulators.virtual.kernel.streams import Streams
from edgeloop_simulators.virtual.network.broker_profiles import IDEAL
from edgeloop_simulators.virtual.network.network import Network
from edgeloop_simulators.virtual.network.wire import Place

OFFER = Offer(
    name="m",
    version="0",
    manifest_digest="0" * 64,
    manifest_size_bytes=1,
    artifact_digest="1" * 64,
    artifact_size_bytes=1,
)
CHAMPION = OFFER.ref
INVENTORY = Inventory(
    agent_version="0", architecture="x", python="3", memory_bytes=1, disk_free_bytes=1, cpu_count=1
)


class Refusing(MemoryJournal):
    refuses = False

    def save(self, snapshot):
        if self.refuses:
            raise OSError(28, "No space left on device")
        super().save(snapshot)


class Recorder:
    """A runner host and a fetcher in one, that write down what they were asked."""

    def __init__(self):
        self.asked = []
        self.refuses = False

    def submit(self, fetch):
        self.asked.append(fetch)

    def keep(self, manifests):
        pass

    def start(self, effect):
        if self.refuses:
            raise OSError(11, "Resource temporarily unavailable")
        self.asked.append(effect)

    def go(self, slot, runner):
        """A runner gets the source."""

    def started(self):
        return [effect for effect in self.asked if isinstance(effect, do.StartRunner)]

    def stop_all(self, kill):
        pass

    def alive(self):
        return 0

    def stop(self):
        """The fetcher's."""


@pytest.fixture
def rig(tmp_path):
    config = AgentConfig.model_validate(
        {
            "device_id": "dev1",
            "state_dir": str(tmp_path),
            "controller_url": "http://127.0.0.1:1",
            "slots": {"main": {"source": {"kind": "socket", "path": "/none"}}},
        }
    )
    clock, inbox, recorder, journal = SimulatedClock(), Inbox(), Recorder(), Refusing()
    journal.save(DeviceSnapshot(slots=(SlotSnapshot(slot="main", champion=OFFER),)))
    telemetry = Telemetry(MemoryOutbox("0" * 16, 10**6), ByteBudget(10**6, None, 0.0), clock)
    events = EventLoop()
    network = Network(events, Streams(1), lambda _seen: None, IDEAL)
    broker = network.client("dev1", (device_subscription("dev1"),), None, Place("dev1"))
    parts = Parts(
        config=config,
        clock=clock,
        broker=broker,
        listener=inbox,
        journal=journal,
        telemetry=telemetry,
        store=ModelStore(OsDisk(tmp_path)),
        host=recorder,
        fetcher=recorder,
        take_inventory=lambda: INVENTORY,
        status=StatusFile(tmp_path, "dev1", telemetry, clock),
        jitter=lambda: 0.5,
        messages_dropped=lambda: inbox.messages_dropped,
    )
    supervisor = Supervisor(parts)
    broker.start(inbox)
    while events.step(until_s=1.0):
        pass
    return SimpleNamespace(
        supervisor=supervisor,
        loop=RunLoop(supervisor, inbox, recorder, clock),
        journal=journal,
        recorder=recorder,
        clock=clock,
        inbox=inbox,
    )


def desired(package):
    slot = SlotDesired(slot="main", offer=package.offer)
    return down_topic("dev1", Down.DESIRED), encode(Desired(revision=1, slots=(slot,)))


def offer(rig, package):
    rig.inbox.message(*desired(package))
    rig.loop.turn()


def step(rig, seconds=0.0):
    rig.clock.advance(seconds)
    rig.inbox.post(ev.Tick())
    rig.loop.turn()


def test_nothing_is_begun_before_the_journal_has_it(rig, make_package):
    """EL-LIFE-1."""
    rig.journal.refuses = True
    offer(rig, make_package())
    step(rig)
    assert [effect.version for effect in rig.recorder.asked] == [CHAMPION]
    assert rig.journal.load()[0].revision == 0
    rig.journal.refuses = False
    step(rig)
    assert len(rig.recorder.asked) == 1, "not before it is tried again"
    step(rig, JOURNAL_RETRY_S)
    assert isinstance(rig.recorder.asked[1], do.FetchManifest)
    assert rig.journal.load()[0].revision == 1


def test_a_full_disk_never_delays_the_restart_of_the_champion(rig, make_package):
    package = make_package()
    rig.supervisor._handle(ev.Started())
    assert [effect.version for effect in rig.recorder.started()] == [CHAMPION]
    rig.journal.refuses = True
    offer(rig, package)
    for crash in range(1, 60):
        number = rig.recorder.started()[-1].runner
        rig.inbox.post(ev.RunnerExited("main", number, "killed by SIGKILL"))
        step(rig)
        step(rig, 60)
        assert len(rig.recorder.started()) == crash + 1
    assert len(rig.recorder.asked) == len(rig.recorder.started()), "and nothing else was begun"
    rig.journal.refuses = False
    step(rig, JOURNAL_RETRY_S)
    fetches = [effect for effect in rig.recorder.asked if isinstance(effect, do.FetchManifest)]
    assert [fetch.offer for fetch in fetches] == [package.offer], "in one go, and once"


def test_a_stop_begins_nothing_more(rig, make_package):
    rig.inbox.message(*desired(make_package()))
    rig.loop.stop()
    assert rig.recorder.asked == []
    assert rig.journal.load()[0].revision == 0


def test_the_status_counts_what_was_not_acted_upon(rig, make_package, tmp_path):
    package = make_package()
    offer(rig, package)
    offer(rig, package)
    rig.inbox.message(down_topic("dev1", Down.DESIRED), b"{")
    rig.inbox.messages_dropped = 7
    rig.clock.advance(2)
    rig.loop.turn()
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["rejected_messages"], status["messages_dropped"]) == (1, 7)
    assert status["stale_desired"] == 1
    assert status["outbox"]["held"] == status["outbox"]["next_sequence"] - 1 > 0
    assert [epoch["epoch"] for epoch in status["outbox"]["epochs"]] == [status["epoch"]]


def test_a_runner_that_cannot_be_started_is_one_that_exited(rig, make_package):
    package = make_package()
    rig.recorder.refuses = True
    offer(rig, package)
    digest = package.manifest.digest()
    ready = INVENTORY.model_copy(update={"disk_free_bytes": 10**9})
    runtime = {"name": "onnx", "version": "1"}
    ready = Inventory.model_validate(ready.model_dump() | {"runtimes": [runtime]})
    rig.inbox.post(ev.ManifestFetched("main", digest, package.manifest, ready, True))
    rig.inbox.post(ev.ArtifactFetched("main", digest))
    rig.loop.turn()
    slot = rig.supervisor.device.reported()[0]
    assert "cannot be started" in slot.waiting
    assert slot.attempts == 1


@pytest.mark.parametrize("wall_s", [0.0, 4_000_000_000.0])
def test_a_jump_of_the_clock_stops_no_runner_and_no_install(rig, make_package, wall_s):
    """Nothing that is decided is decided by the wall clock."""
    package = make_package()
    rig.supervisor._handle(ev.Started())
    runner = rig.recorder.started()[-1].runner
    rig.inbox.post(ev.RunnerSelfTested("main", runner, True, ""))
    rig.inbox.post(ev.RunnerServing("main", runner))
    step(rig)
    rig.clock.jump_wall(wall_s)
    rig.inbox.post(ev.RunnerProgressed("main", runner, ev.Progress()))
    step(rig, 10.0)
    assert rig.supervisor.device.reported()[0].runner_alive
    assert rig.supervisor.device.reported()[0].runner_restarts == 0
    offer(rig, package)
    fetches = [effect for effect in rig.recorder.asked if isinstance(effect, do.FetchManifest)]
    assert [fetch.offer for fetch in fetches] == [package.offer]
