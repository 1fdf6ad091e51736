"""The composition root: a configuration becomes a running agent."""

import logging
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeloop_agent.config import CERTIFICATE_NAME, AgentConfig
from edgeloop_agent.core.budget import ByteBudget
from edgeloop_agent.ports import RunnerSaid, Status
from edgeloop_agent.shell.corrected_times import correcting
from edgeloop_agent.shell.diagnosis import Diagnosis
from edgeloop_agent.shell.download import Downloader
from edgeloop_agent.shell.fetch_worker import FetchWorker
from edgeloop_agent.shell.http_source import HttpArtifactSource
from edgeloop_agent.shell.inbox import Inbox
from edgeloop_agent.shell.inventory import DeviceInventory, total_memory_bytes
from edgeloop_agent.shell.journal import FileJournal
from edgeloop_agent.shell.live_reload import LiveReload
from edgeloop_agent.shell.lock import StateDirLock
from edgeloop_agent.shell.model_store import ModelStore
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.outbox_file import new_epoch, open_outbox
from edgeloop_agent.shell.paced_reads import PacedReads
from edgeloop_agent.shell.patch_process import PatchProcess
from edgeloop_agent.shell.patch_route import PatchRoute
from edgeloop_agent.shell.patient_outbox import PatientOutbox
from edgeloop_agent.shell.renewal import Renewal
from edgeloop_agent.shell.run_loop import RunLoop
from edgeloop_agent.shell.runner_process import RunnerProcesses
from edgeloop_agent.shell.service_manager import from_environment
from edgeloop_agent.shell.status import StatusFile
from edgeloop_agent.shell.supervisor import Parts, Supervisor
from edgeloop_agent.shell.telemetry import Telemetry
from edgeloop_agent.shell.time_floor import FlooredClock
from edgeloop_agent.shell.trust_gate import TrustGate
from edgeloop_agent.shell.trust_process import TrustProcess
from edgeloop_protocol.clock import Clock, SystemClock
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.messages import DeviceEvent, Offer, Presence, encode
from edgeloop_protocol.mqtt import BrokerAddress, PahoBroker
from edgeloop_protocol.topics import Up, device_subscription, up_topic

logger = logging.getLogger(__name__)

RUNNERS_MEMORY_SHARE: Final = 0.75
"""Of the device's memory; the rest is for the supervisor and everything else on the device."""

TRUST_DIRECTORY: Final = "trust"


def run_agent(
    config: AgentConfig, read_config: Callable[[], AgentConfig], config_path: Path
) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the configuration again. Raises
    StateDirInUseError."""
    device_bytes = total_memory_bytes()
    config = with_memory_limit(config, device_bytes)
    manager = from_environment()
    state_dir = Path(config.state_dir)
    disk = OsDisk(state_dir)
    lock = StateDirLock(state_dir)
    outbox = PatientOutbox(
        lambda epoch: open_outbox(state_dir, config.telemetry.outbox_max_bytes, epoch),
        new_epoch(),
        SystemClock(),
    )
    try:
        inbox = Inbox()
        clock = FlooredClock(SystemClock(), disk)
        host = RunnerProcesses(config, disk, correcting(inbox.post, clock.correction_s))
        pace = PacedReads(config.limits.download_bytes_per_s_max)
        gate = trust_gate(config, clock)
        parts = _parts(config, disk, outbox, inbox, host, clock, pace, gate)
        renewal = _renewal(config, config_path, parts)
        supervisor = Supervisor(parts)

        def use(new: AgentConfig) -> None:
            host.use(new)
            pace.use(new.limits.download_bytes_per_s_max)
            if gate is not None:
                gate.use(new.labels)

        reload = LiveReload(
            supervisor, parts, use, lambda: with_memory_limit(read_config(), device_bytes)
        )
        loop = RunLoop(supervisor, inbox, parts.host, parts.clock, manager, reload, renewal)
        signal.signal(signal.SIGHUP, lambda *_: loop.request_reload())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.request_stop())
        logger.info("device %s, epoch %s, state in %s", config.device_id, outbox.epoch, state_dir)
        loop.run()
    finally:
        outbox.close()
        lock.release()


def _renewal(config: AgentConfig, config_path: Path, parts: Parts) -> Renewal | None:
    if config.identity is None:
        return None
    renewal = Renewal(
        config_path,
        config.identity_dir / CERTIFICATE_NAME,
        parts.clock,
        lambda name, detail: parts.telemetry.event(name, detail=detail[:TEXT_MAX_CHARS]),
        parts.jitter,
    )
    parts.diagnose = Diagnosis(Path(config.state_dir), renewal.ask)
    return renewal


def with_memory_limit(config: AgentConfig, device_bytes: int) -> AgentConfig:
    """Without a configured one, all slots' runners together get RUNNERS_MEMORY_SHARE."""
    if config.limits.runner_memory_max_bytes or not device_bytes:
        return config
    share = int(device_bytes * RUNNERS_MEMORY_SHARE / len(config.slots))
    limits = config.limits.model_copy(update={"runner_memory_max_bytes": share})
    return config.model_copy(update={"limits": limits})


def trust_gate(config: AgentConfig, clock: Clock) -> TrustGate | None:
    """None: unsigned versions are taken, and the log says so."""
    if config.trust is None or config.trust.root is None:
        logger.warning("%s", config.trust_in_words)
        return None
    store, url = config.state_dir / TRUST_DIRECTORY, config.trust_metadata_url
    process = TrustProcess(store, config.trust.root, url, clock, tls=config.http_tls)
    return TrustGate(process, config.device_id, config.labels)


def _parts(
    config: AgentConfig,
    disk: OsDisk,
    outbox: PatientOutbox,
    inbox: Inbox,
    host: RunnerProcesses,
    clock: FlooredClock,
    pace: PacedReads,
    gate: TrustGate | None,
) -> Parts:
    state_dir = disk.root
    store = ModelStore(disk)
    budget = ByteBudget(
        config.telemetry.budget_bytes_per_day, outbox.load_budget(), clock.monotonic()
    )
    captured = config.telemetry.capture_bytes_per_day
    # Empty at the start: a device that restarts often must not be granted the day's bytes often.
    capture = None if captured is None else ByteBudget(captured, 0.0, clock.monotonic())
    telemetry = Telemetry(outbox, budget, clock, capture)
    applier = PatchProcess(disk)
    take_inventory = DeviceInventory(state_dir, applier.formats, config.sensors)
    broker = PahoBroker(
        BrokerAddress(
            config.broker.host,
            config.broker.port,
            config.broker.username,
            config.broker.password,
            config.broker_tls,
        ),
        client_id=config.device_id,
        subscriptions=(device_subscription(config.device_id),),
        will=(
            up_topic(config.device_id, Up.PRESENCE),
            encode(Presence(epoch=outbox.epoch, online=False)),
        ),
    )

    def note(offer: Offer, slot: str, name: str, detail: str) -> None:
        inbox.post(
            RunnerSaid(
                slot,
                DeviceEvent(
                    at=clock.wall(),
                    name=name,
                    slot=slot,
                    version=offer.ref,
                    detail=detail[:TEXT_MAX_CHARS],
                ),
            )
        )

    downloader = Downloader(
        HttpArtifactSource(config.controller_url, clock.heard, pace, config.http_tls),
        store,
        patches=PatchRoute(applier, store),
        note=note,
    )
    status = StatusFile(
        state_dir, config.device_id, telemetry, clock, host.confinement, config.trust_in_words
    )
    return Parts(
        config=config,
        clock=clock,
        broker=broker,
        listener=inbox,
        journal=FileJournal(disk),
        telemetry=telemetry,
        store=store,
        host=host,
        fetcher=FetchWorker(downloader, take_inventory, inbox.post, pace.wake, gate),
        take_inventory=take_inventory,
        status=_status(config, status, broker),
        jitter=random.SystemRandom().random,
        messages_dropped=lambda: inbox.messages_dropped,
        outbox_problem=outbox.problem,
        diagnose=Diagnosis(state_dir),
    )


def _status(config: AgentConfig, file: StatusFile, broker: PahoBroker) -> Status:
    if config.home_assistant is None:
        return file
    from edgeloop_agent.shell.home_assistant import HomeAssistantStatus

    return HomeAssistantStatus(file, config, broker.publish_retained)
