"""An agent that only talks: all of the real agent but its runners, in whose place a thread makes
telemetry as fast as it is taken.

Real are supervisor, core, journal, outbox on disk, drain, MQTT client and lock; it connects to a
real broker and a real controller. What `append` returned for is told before the agent goes on, in a
file that a kill does not reach: one byte a record.

    python -m edgeloop_simulators.torture.talker DIRECTORY DEVICE --broker PORT --controller URL
        --records 1000 --held 500
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.ports import Outbox, RunnerSaid
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.inventory import DeviceInventory
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.lock import StateDirLock
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.outbox import EPOCHS_KEPT_MAX
from edgeloop_agent.shell.outbox_file import new_epoch, open_outbox
from edgeloop_agent.shell.patient_outbox import PatientOutbox
from edgeloop_agent.shell.run_loop import RunLoop
from edgeloop_agent.shell.status import StatusFile
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_agent.shell.time_floor import FlooredClock
from edgeloop_protocol.clock import SystemClock
from edgeloop_protocol.messages import (
    DeviceEvent,
    Presence,
    RecordBody,
    Sample,
    VersionRef,
    WindowSummary,
    encode,
)
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import Up, device_subscription, up_topic
from edgeloop_simulators.fleet import HOST
from edgeloop_simulators.torture.quick_runners import QuickRunners
from edgeloop_simulators.torture.subject import unlimited_budget
from edgeloop_simulators.twins.watched_outbox import WatchedOutbox

SLOT: Final = "main"
VERSION: Final = VersionRef(name="talker", version="1", manifest_digest="7" * 64)
WAITING_MAX: Final = 200
"""In the agent's inbox: a flood of our own shall not crowd out what the controller says."""
LOOK_S: Final = 0.005
"""How often it is looked whether more may be said."""


class ToldOutbox(WatchedOutbox):
    """Tells each record that was appended, after it was."""

    def __init__(self, outbox: Outbox, directory: Path) -> None:
        super().__init__(outbox)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / outbox.epoch
        self._told = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.appended = 0

    def append(self, documents: Sequence[bytes], budget_left_bytes: float | None = None) -> int:
        dropped = super().append(documents, budget_left_bytes)
        os.write(self._told, b"." * len(documents))
        self.appended += len(documents)
        return dropped


def body_of(epoch: str, number: int) -> RecordBody:
    """No two are the same: by `detail`, `reference` or `started_at` in a version of its own."""
    if number % 10 == 0:
        return WindowSummary(
            slot=SLOT,
            version=VersionRef(name="talker", version=epoch, manifest_digest=epoch * 4),
            started_at=float(number),
            ended_at=float(number + 10),
            count=10,
            latency_p50_us=1.0,
            latency_p95_us=2.0,
            predictions=(4, 6),
            confidence=(1, 2, 3, 4),
            features=((5, 5), (1, 9)),
        )
    if number % 10 == 1:
        return Sample(
            slot=SLOT,
            version=VERSION,
            taken_at=float(number),
            reference=f"{epoch}/{number}",
            features=(0.25, 0.5),
            prediction=0,
            confidence=0.75,
        )
    return DeviceEvent(at=float(number), name="talked", detail=f"{epoch}/{number}")


def run(directory: Path, config: AgentConfig, records: int, held_max: int) -> None:
    """Until SIGTERM; `records` are those of all boots together."""
    state_dir = Path(config.state_dir)
    disk = OsDisk(state_dir)
    lock = StateDirLock(state_dir)
    inbox, clock = Inbox(), FlooredClock(SystemClock(), disk)
    outbox = PatientOutbox(
        lambda epoch: open_outbox(state_dir, config.telemetry.outbox_max_bytes, epoch),
        new_epoch(),
        SystemClock(),
    )
    try:
        before = sum(epoch.appended for epoch in outbox.counts(EPOCHS_KEPT_MAX))
        told = ToldOutbox(outbox, directory / "told")
        telemetry = Telemetry(told, unlimited_budget(), clock)
        take_inventory = DeviceInventory(state_dir)
        downloader = Downloader(HttpArtifactSource(config.controller_url), ModelStore(disk))
        parts = Parts(
            config=config,
            clock=clock,
            broker=_broker(config, outbox.epoch),
            listener=inbox,
            journal=FileJournal(disk),
            telemetry=telemetry,
            store=ModelStore(disk),
            host=QuickRunners(disk, inbox.post),
            fetcher=FetchWorker(downloader, take_inventory, inbox.post),
            take_inventory=take_inventory,
            status=StatusFile(state_dir, config.device_id, telemetry, clock),
            jitter=lambda: 0.5,
        )
        loop = RunLoop(Supervisor(parts), inbox, parts.host, clock)
        signal.signal(signal.SIGTERM, lambda *_: loop.request_stop())

        def talk() -> None:
            for number in range(1, records - before + 1):
                while number - told.appended > WAITING_MAX or outbox.totals().held >= held_max:
                    time.sleep(LOOK_S)
                inbox.post(RunnerSaid(SLOT, body_of(outbox.epoch, number)))

        threading.Thread(target=talk, name="talk", daemon=True).start()
        loop.run()
    finally:
        outbox.close()
        lock.release()


def _broker(config: AgentConfig, epoch: str) -> PahoBroker:
    return PahoBroker(
        BrokerAddress(config.broker.host, config.broker.port),
        client_id=config.device_id,
        subscriptions=(device_subscription(config.device_id),),
        will=(
            up_topic(config.device_id, Up.PRESENCE),
            encode(Presence(epoch=epoch, online=False)),
        ),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("device")
    parser.add_argument("--broker", type=int, required=True)
    parser.add_argument("--controller", required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--held", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    config = AgentConfig.model_validate(
        {
            "device_id": options.device,
            "state_dir": options.directory / "state",
            "controller_url": options.controller,
            "broker": {"host": HOST, "port": options.broker},
            "slots": {SLOT: {"source": {"kind": "replay", "path": "/nothing"}}},
        }
    )
    run(options.directory, config, options.records, options.held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
