"""The agent under torture: all of the real agent but its network, until it has done what it shall.

Real are supervisor, core, journal, outbox, store and downloads, on the disk that it is given;
runners are processes or quick ones. In the controller's and the broker's place stands `Counterpart`
in the same process, which remembers nothing: what must be remembered is told to the torturer.

    python -m edgeloop_simulators.torture.subject STATE_DIR SHELF --revision 2 --version 2

Exit status 0: the version is committed and all that was recorded is acknowledged; 3: not in time.
"""

import argparse
import logging
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig, ReplaySource, SlotConfig
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.inventory import DeviceInventory
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.lock import StateDirLock
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.outbox_file import new_epoch, open_outbox
from edgeloop_agent.shell.patient_outbox import PatientOutbox
from edgeloop_agent.shell.run_loop import RunLoop
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_agent.shell.status import StatusFile
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.lifecycle import RESTING
from edgeloop_protocol.messages import (
    Ack,
    Desired,
    Hello,
    Inventory,
    Probation,
    Reported,
    RuntimeInfo,
    SlotDesired,
    TelemetryBatch,
    decode,
    encode,
)
from edgeloop_protocol.mqtt import BrokerListener
from edgeloop_protocol.topics import Down, Up, down_topic, parse_up_topic
from edgeloop_simulators.torture.promises import (
    Tell,
    TellingJournal,
    TellingOutbox,
    done,
    received,
)
from edgeloop_simulators.torture.quick_runners import QuickRunners
from edgeloop_simulators.torture.versions import Shelf

DEVICE: Final = "tortured"
SLOT: Final = "default"
DISK_RESERVE_BYTES: Final = 0
"""The image of a power cut is small."""
PATIENCE_S: Final = 60.0
NOT_IN_TIME: Final = 3
ATTEMPTS_EXHAUSTED: Final = "attempts exhausted"
"""As it must end when the power goes in each of its tries (EL-LIFE-5): the old version runs on."""
QUICK: Final = Probation(min_s=0.02, min_examples=1, max_s=30.0, compare=False)
_REAL: Final = Probation(min_s=0.2, min_examples=5, max_s=30.0, max_latency_ratio=1e6)
"""Who is watched at each system call is slow, and the machine is busy with others like it."""
INVENTORY: Final = Inventory(
    agent_version="tortured",
    architecture="any",
    python="any",
    runtimes=(RuntimeInfo(name="onnx", version="any"),),
    memory_bytes=2**32,
    disk_free_bytes=2**32,
    cpu_count=1,
)


@dataclass(frozen=True)
class Goal:
    """`version`: which of the two is wanted first, 0 or 1; with `forever` the other one follows,
    and so on, each with the next revision."""

    revision: int
    version: int
    forever: bool = False


class Counterpart:
    """Broker and controller in one: what the device says is heard, and answered, at once."""

    def __init__(self, goal: Goal, shelf: Shelf, probation: Probation, tell: Tell) -> None:
        self._goal = goal
        self._offers = shelf.offers
        self._probation = probation
        self._tell = tell
        self._revision, self._version = goal.revision, goal.version
        self._listener: BrokerListener | None = None
        self.is_content = False

    def start(self, listener: BrokerListener) -> None:
        self._listener = listener
        listener.connected()

    def stop(self) -> None:
        self._listener = None

    def publish(self, topic: str, payload: bytes) -> bool:
        _, kind = parse_up_topic(topic)
        if kind is Up.TELEMETRY:
            self._take(decode(TelemetryBatch, payload))
        elif kind is Up.HELLO:
            self._look(decode(Hello, payload))
        elif kind is Up.REPORTED:
            self._look(decode(Reported, payload))
        return True

    def _take(self, batch: TelemetryBatch) -> None:
        first, count = batch.records[0].sequence, len(batch.records)
        self._tell(received(batch.epoch, first, count))
        self._say(Down.ACK, encode(Ack(epoch=batch.epoch, through=first + count - 1)))

    def _look(self, said: Hello | Reported) -> None:
        wanted = self._offers[self._version]
        slot = next(slot for slot in said.slots if slot.slot == SLOT)
        if said.revision < self._revision:
            self._desire()
        elif (slot.champion == wanted.ref and slot.candidate is None and slot.state in RESTING) or (
            slot.refused is not None
            and slot.refused.version == wanted.ref
            and slot.refused.cause == ATTEMPTS_EXHAUSTED
        ):
            self._reached()

    def _reached(self) -> None:
        if not self._goal.forever:
            self.is_content = True
            return
        self._revision, self._version = self._revision + 1, 1 - self._version
        self._desire()

    def _desire(self) -> None:
        offer = self._offers[self._version]
        slot = SlotDesired(slot=SLOT, offer=offer, probation=self._probation)
        self._say(Down.DESIRED, encode(Desired(revision=self._revision, slots=(slot,))))

    def _say(self, kind: Down, payload: bytes) -> None:
        if self._listener is not None:
            self._listener.message(down_topic(DEVICE, kind), payload)


def run(state_dir: Path, shelf: Shelf, goal: Goal, tell: Tell, *, quick: bool) -> int:
    """An exit status. What the disk refuses is the agent's to bear: whatever it raises comes out.

    `tell` has each promise, and returns when it is heard.
    """
    disk = OsDisk(state_dir)
    lock = StateDirLock(state_dir)
    config = config_of(state_dir, shelf.stream)
    inbox, clock = Inbox(), SystemClock()
    outbox = PatientOutbox(
        lambda epoch: open_outbox(state_dir, config.telemetry.outbox_max_bytes, epoch),
        new_epoch(),
        clock,
    )
    counterpart = Counterpart(goal, shelf, QUICK if quick else _REAL, tell)
    try:
        store, kept = ModelStore(disk), TellingOutbox(outbox, tell)
        telemetry = Telemetry(kept, unlimited_budget(), clock)
        take_inventory = (lambda: INVENTORY) if quick else DeviceInventory(state_dir)
        downloader = Downloader(shelf, store, DISK_RESERVE_BYTES)
        parts = Parts(
            config=config,
            clock=clock,
            broker=counterpart,
            listener=inbox,
            journal=TellingJournal(FileJournal(disk), tell),
            telemetry=telemetry,
            store=store,
            host=QuickRunners(disk, inbox.post)
            if quick
            else RunnerProcesses(config, disk, inbox.post),
            fetcher=FetchWorker(downloader, take_inventory, inbox.post),
            take_inventory=take_inventory,
            status=StatusFile(state_dir, DEVICE, telemetry, clock),
            jitter=lambda: 0.05 * random.random(),  # noqa: S311 - short waits, no secret
            outbox_problem=outbox.problem,
        )
        supervisor = Supervisor(parts)
        loop = RunLoop(supervisor, inbox, parts.host, clock)
        supervisor.begin()
        deadline = clock.monotonic() + PATIENCE_S
        is_done = False
        while not is_done and (goal.forever or clock.monotonic() < deadline):
            loop.turn()
            is_done = counterpart.is_content and kept.totals().held == 0
        if is_done:
            tell(done())  # before what runners say at their end, which the next start sends
        loop.stop()
    finally:
        outbox.close()
        lock.release()
    return 0 if is_done else NOT_IN_TIME


def unlimited_budget() -> ByteBudget:
    return ByteBudget(2**40, None, 0.0)


def config_of(state_dir: Path, stream: Path) -> AgentConfig:
    return AgentConfig.model_validate(
        {
            "device_id": DEVICE,
            "state_dir": state_dir,
            "controller_url": "http://127.0.0.1:1",
            "slots": {SLOT: SlotConfig(source=ReplaySource(path=stream, rate_hz=50.0))},
            "telemetry": {"window_s": 0.5, "sample_fraction": 0.1},
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--revision", type=int, required=True)
    parser.add_argument("--version", type=int, choices=(1, 2), required=True)
    parser.add_argument("--quick", action="store_true", help="no runner processes")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    goal = Goal(options.revision, options.version - 1)

    def tell(line: str) -> None:
        print(line, flush=True)

    return run(options.state_dir, Shelf(options.shelf), goal, tell, quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
