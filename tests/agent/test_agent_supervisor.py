"""The supervisor over twins: the journal first, and a disk or a process table that refuses."""

import json
from types import SimpleNamespace

import pytest

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.status import StatusFile
from edgeloop_agent.shell.supervisor import JOURNAL_RETRY_S, Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.messages import Desired, Inventory, SlotDesired, encode
from edgeloop_protocol.topics import Down, device_subscription, down_topic
from edgeloop_simulators.twins.broker import MemoryBroker
from edgeloop_simulators.twins.clock import SimulatedClock
from edgeloop_simulators.twins.journal import MemoryJournal
from edgeloop_simulators.twins.outbox import MemoryOutbox

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
    telemetry = Telemetry(MemoryOutbox("0" * 16, 10**6), ByteBudget(10**6, None, 0.0), clock)
    bus = MemoryBroker()
    broker = bus.client("dev1", (device_subscription("dev1"),))
    parts = Parts(
        config=config,
        clock=clock,
        inbox=inbox,
        broker=broker,
        journal=journal,
        telemetry=telemetry,
        store=ModelStore(tmp_path),
        host=recorder,
        fetcher=recorder,
        take_inventory=lambda: INVENTORY,
        status=StatusFile(tmp_path, "dev1", telemetry, clock),
    )
    supervisor = Supervisor(parts)
    broker.start(inbox)
    return SimpleNamespace(
        supervisor=supervisor, journal=journal, recorder=recorder, clock=clock, inbox=inbox
    )


def offer(rig, package, revision=1):
    slot = SlotDesired(slot="main", offer=package.offer)
    desired = encode(Desired(revision=revision, slots=(slot,)))
    rig.inbox.message(down_topic("dev1", Down.DESIRED), desired)
    rig.supervisor._turn()


def test_nothing_is_done_before_the_journal_has_it(rig, make_package):
    """EL-LIFE-1."""
    rig.journal.refuses = True
    offer(rig, make_package())
    assert rig.recorder.asked == []
    rig.journal.refuses = False
    rig.inbox.post(ev.Tick())
    rig.supervisor._turn()
    assert rig.recorder.asked == [], "not before it is tried again"
    rig.clock.advance(JOURNAL_RETRY_S)
    rig.inbox.post(ev.Tick())
    rig.supervisor._turn()
    assert len(rig.recorder.asked) == 1
    assert rig.journal.load()[0].revision == 1


def test_the_status_counts_what_was_not_acted_upon(rig, make_package, tmp_path):
    package = make_package()
    offer(rig, package)
    offer(rig, package)
    rig.inbox.message(down_topic("dev1", Down.DESIRED), b"{")
    rig.inbox.messages_dropped = 7
    rig.clock.advance(2)
    rig.supervisor._turn()
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
    rig.supervisor._turn()
    slot = rig.supervisor._device.reported()[0]
    assert "cannot be started" in slot.waiting
    assert slot.attempts == 1
