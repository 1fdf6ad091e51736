"""What the routes work with, put into the application's state by `api.app.create_app`."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from edgeloop_controller.artifacts import ArtifactStore
from edgeloop_controller.broker import EmbeddedBroker, InboxListener
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.http_tls import HttpTls
from edgeloop_controller.services.challengers import Challengers
from edgeloop_controller.services.desired import DesiredPublisher
from edgeloop_controller.services.diagnosis import Diagnosis
from edgeloop_controller.services.drift_watch import DriftWatch
from edgeloop_controller.services.enrolment import Enrolment
from edgeloop_controller.services.explaining import Explaining
from edgeloop_controller.services.inbox import Inbox
from edgeloop_controller.services.ingest import Ingest
from edgeloop_controller.services.labelling import Labelling
from edgeloop_controller.services.mlflow import Mlflow
from edgeloop_controller.services.people import People
from edgeloop_controller.services.planning import Planning
from edgeloop_controller.services.policies import PolicyShelf
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.retrain import Retraining
from edgeloop_controller.services.rollouts import Rollouts
from edgeloop_controller.services.signing_gate import SigningGate
from edgeloop_controller.services.trust import Trust
from edgeloop_controller.services.webhooks import Webhooks
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock


@dataclass(frozen=True)
class Services:
    """Everything that the composition root built."""

    config: ControllerConfig
    clock: Clock
    database: Database
    people: People
    artifacts: ArtifactStore
    registry: Registry
    embedded_broker: EmbeddedBroker | None
    listener: InboxListener
    inbox: Inbox
    ingest: Ingest
    desired: DesiredPublisher
    publishing: Publishing
    rollouts: Rollouts
    planning: Planning
    challengers: Challengers
    drift_watch: DriftWatch
    labelling: Labelling
    policies: PolicyShelf
    retraining: Retraining
    diagnosis: Diagnosis
    explaining: Explaining
    webhooks: Webhooks
    trust: Trust
    signing_gate: SigningGate
    mlflow: Mlflow | None
    enrolment: Enrolment
    http_tls: HttpTls | None = None


async def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


Context = Annotated[Services, Depends(_services)]
