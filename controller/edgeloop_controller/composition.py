"""The composition root: builds the controller's parts, starts them, and stops them in reverse.

Invariants: a part is started after those that it needs; a broker that is away is a warning, not an
error: the connection is tried for ever; training scripts end with the controller.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeloop_controller.api.context import Services
from edgeloop_controller.artifacts import ArtifactStore, LocalArtifactStore
from edgeloop_controller.broker import EmbeddedBroker, InboxListener, address_of, connect
from edgeloop_controller.ca.authority import Authority
from edgeloop_controller.ca.opening import opened_once
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.oidc import OidcProvider
from edgeloop_controller.own_certificates import RENEWAL_LOOK_S, OwnCertificates, own_certificates
from edgeloop_controller.scheduler import Scheduler
from edgeloop_controller.services.broker_access import BrokerAccess
from edgeloop_controller.services.candidate import Candidates, MakeCandidates
from edgeloop_controller.services.challengers import Challengers
from edgeloop_controller.services.desired import DesiredPublisher, Outbound
from edgeloop_controller.services.diagnosis import Diagnosis
from edgeloop_controller.services.drift_watch import DriftWatch
from edgeloop_controller.services.enrolment import Enrolment
from edgeloop_controller.services.explaining import Explaining
from edgeloop_controller.services.inbox import Inbox
from edgeloop_controller.services.ingest import Ingest
from edgeloop_controller.services.labelling import Labelling
from edgeloop_controller.services.mlflow import make_mlflow
from edgeloop_controller.services.mlflow_following import WORK_S as MLFLOW_WORK_S
from edgeloop_controller.services.patches import Patches
from edgeloop_controller.services.people import People
from edgeloop_controller.services.planning import Planning
from edgeloop_controller.services.policies import PolicyShelf
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.reconcile import Reconciler
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.retrain import Retraining
from edgeloop_controller.services.rollouts import Rollouts
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.services.training_runs import TrainingRuns
from edgeloop_controller.services.trust import Trust
from edgeloop_controller.services.unheard import Unheard
from edgeloop_controller.services.webhooks import Webhooks
from edgeloop_controller.store.engine import Database
from edgeloop_controller.training.executor import Executor, LocalExecutor
from edgeloop_controller.trust_store import LocalTrustStore, MemoryTrustStore, TrustStore
from edgeloop_controller.webhook_courier import carrying
from edgeloop_protocol.clock import Clock, SystemClock

INGEST_JOIN_S: Final = 10.0
BROKER_LOOK_S: Final = 1.0
ACCESS_LOOK_S: Final = 0.5
"""A revoked device is to be cut off within 5 s, and telling a broker may take two of them."""


@dataclass(frozen=True)
class Parts:
    """What is built: what the API needs, and what only the scheduler calls."""

    services: Services
    reconciler: Reconciler
    training_runs: TrainingRuns
    patches: Patches
    access: BrokerAccess | None


@contextmanager
def running(config: ControllerConfig, config_path: Path | None = None) -> Iterator[Services]:
    """All of the controller but HTTP: database, broker, ingest and scheduler, until the end.
    `config_path`: where the configuration was read, for it may hold the broker's password."""
    with ExitStack() as stack:
        database = Database(config.database)
        stack.callback(database.close)
        embedded = None
        if config.broker.embedded:
            embedded = EmbeddedBroker(config.broker, config.data_dir)
            embedded.start()
            stack.callback(embedded.stop)
        clock = SystemClock()
        open_authority = opened_once(config.ca_dir, config.ca, clock)
        own = own_certificates(config, open_authority, clock)
        broker = connect(config.broker, own.broker_tls)
        artifacts = LocalArtifactStore(config.artifacts_dir)
        parts = build(
            config,
            database,
            broker,
            clock,
            artifacts,
            LocalExecutor(secret_paths(config, config_path)),
            embedded,
            trust_store=LocalTrustStore(config.trust_dir),
            open_authority=open_authority,
            own=own,
        )
        parts.training_runs.take_up_interrupted()
        stack.enter_context(carrying(parts.services.webhooks, clock))
        stack.enter_context(_ingesting(parts.services.ingest))
        stack.callback(broker.stop)
        broker.start(parts.services.listener)
        scheduler = _schedule(config, parts, own)
        stack.callback(scheduler.stop)
        stack.callback(parts.training_runs.cancel)
        if parts.services.mlflow is not None:
            parts.services.mlflow.open()
            stack.callback(parts.services.mlflow.following.close)
        scheduler.start()
        yield parts.services


def secret_paths(config: ControllerConfig, config_path: Path | None) -> tuple[Path, ...]:
    """What no training script is to read or to write."""
    named = [
        config_path,
        config.data_dir,
        config.broker.tls.key_path if config.broker.tls is not None else None,
        config.broker.access.directory if config.broker.access is not None else None,
        config.http.tls.key_path if config.http.tls is not None else None,
        config.ca.key_path,
        *(hook.secret_file for hook in config.webhooks.hooks.values()),
        *(config.mlflow.secret_files if config.mlflow is not None else ()),
    ]
    return tuple(path.absolute() for path in named if path is not None)


def build(
    config: ControllerConfig,
    database: Database,
    outbound: Outbound,
    clock: Clock,
    artifacts: ArtifactStore,
    executor: Executor,
    embedded: EmbeddedBroker | None = None,
    make_candidates: MakeCandidates = Candidates,
    trust_store: TrustStore | None = None,
    open_authority: Callable[[], Authority] | None = None,
    own: OwnCertificates | None = None,
) -> Parts:
    """Everything but threads, sockets and timers: whoever has it calls what is due. Without a
    `trust_store` what is signed is kept in memory only."""
    open_authority = open_authority or opened_once(config.ca_dir, config.ca, clock)
    access = None
    if config.broker.access is not None and own is not None:
        access = BrokerAccess(
            database,
            open_authority,
            config.broker.access,
            address_of(config.broker, own.broker_tls),
            config.ca_dir,
            clock,
        )
    registry = Registry(artifacts)
    trust = Trust(trust_store or MemoryTrustStore(), database, registry, clock, config.trust)
    gate = SigningGate(trust)
    limits = config.limits
    inbox = Inbox(limits.inbox_max_messages, limits.inbox_max_bytes)
    patches = Patches(database, artifacts, clock, config.patches)
    desired = DesiredPublisher(database, outbound, clock, patches)
    unheard = Unheard(database, outbound, clock)

    def ask_everybody() -> None:
        desired.ask_all()
        unheard.look_for_strangers()

    publishing = Publishing(database, registry, clock)
    oidc = config.access.oidc
    identities = OidcProvider(oidc, clock) if oidc is not None else None
    people = People(database, clock, required=config.requires_token, identities=identities)
    two_persons = config.access.two_person_rollouts
    rollouts = Rollouts(database, desired, clock, gate, two_persons=two_persons)
    policies = PolicyShelf(database, clock, config.retraining)
    retraining = Retraining(database, clock, policies, config.runs_dir)
    diagnosis = Diagnosis(database, outbound)
    listener = InboxListener(inbox, ask_everybody)
    address = f"{config.broker.host}:{config.broker.port}"
    services = Services(
        config=config,
        clock=clock,
        database=database,
        people=people,
        artifacts=artifacts,
        registry=registry,
        embedded_broker=embedded,
        listener=listener,
        inbox=inbox,
        ingest=Ingest(
            database,
            inbox,
            outbound,
            desired,
            unheard,
            clock,
            limits.batch_max_messages,
            diagnosis,
        ),
        desired=desired,
        publishing=publishing,
        rollouts=rollouts,
        planning=Planning(database, registry, patches, clock, gate),
        challengers=Challengers(database, clock, gate),
        drift_watch=DriftWatch(database, registry, clock, config.drift),
        labelling=Labelling(database, registry, clock),
        policies=policies,
        retraining=retraining,
        diagnosis=diagnosis,
        explaining=Explaining(database, listener, address, clock, gate),
        webhooks=Webhooks(database, config.webhooks, clock),
        trust=trust,
        signing_gate=gate,
        mlflow=make_mlflow(config, publishing, rollouts, database, clock),
        enrolment=Enrolment(
            database,
            open_authority,
            config.enrolment,
            clock,
            access.changed if access is not None else lambda: None,
        ),
        http_tls=own.http_tls if own is not None else None,
    )
    candidates = make_candidates(database, registry, publishing, limits)
    training_runs = TrainingRuns(
        database,
        registry,
        executor,
        candidates,
        rollouts,
        policies.load,
        clock,
        provenance=config.retraining.provenance,
    )
    reconciler = Reconciler(
        database, registry, desired, unheard, clock, config.offline_after_s, gate
    )
    return Parts(services, reconciler, training_runs, patches, access)


def _schedule(config: ControllerConfig, parts: Parts, own: OwnCertificates) -> Scheduler:
    scheduler = Scheduler()
    scheduler.every(RENEWAL_LOOK_S, "certificates", own.renew)
    if parts.access is not None:
        scheduler.every(ACCESS_LOOK_S, "access", parts.access.look)
    if parts.services.embedded_broker is not None:
        scheduler.every(BROKER_LOOK_S, "broker", parts.services.embedded_broker.keep_running)
    scheduler.every(config.tick_s, "reconcile", parts.reconciler.tick)
    if config.patches.enabled:
        scheduler.every(config.patches.interval_s, "patches", parts.patches.look)
    if config.drift.enabled:
        scheduler.every(config.drift.interval_s, "drift", parts.services.drift_watch.look)
    scheduler.every(config.trust.renew_interval_s, "trust", parts.services.trust.renew)
    scheduler.every(config.retraining.interval_s, "policies", parts.services.retraining.look)
    scheduler.every(config.retraining.interval_s, "training", parts.training_runs.work)
    if parts.services.mlflow is not None:
        scheduler.every(MLFLOW_WORK_S, "mlflow", parts.services.mlflow.following.work)
    return scheduler


@contextmanager
def _ingesting(ingest: Ingest) -> Iterator[None]:
    thread = threading.Thread(target=ingest.run, name="ingest", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ingest.stop()
        thread.join(INGEST_JOIN_S)
