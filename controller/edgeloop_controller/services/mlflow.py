"""What there is of MLflow in a controller whose configuration names a server; else None."""

from dataclasses import dataclass

from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.mlflow_registry import MlflowRegistry
from edgeloop_controller.services.mlflow_following import MlflowFollowing
from edgeloop_controller.services.mlflow_publishing import MlflowPublishing
from edgeloop_controller.services.mlflow_webhooks import MlflowWebhooks
from edgeloop_controller.services.publishing import Publishing
from edgeloop_controller.services.rollouts import Rollouts
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock


@dataclass(frozen=True)
class Mlflow:
    publishing: MlflowPublishing
    following: MlflowFollowing
    webhooks: MlflowWebhooks

    def open(self) -> None:
        """Raises StartError."""
        self.following.open()
        self.webhooks.open()


def make_mlflow(
    config: ControllerConfig,
    publishing: Publishing,
    rollouts: Rollouts,
    database: Database,
    clock: Clock,
) -> Mlflow | None:
    if config.mlflow is None:
        return None
    registry = MlflowRegistry(config.mlflow, clock.monotonic)
    found = MlflowPublishing(registry, publishing, config.limits)
    following = MlflowFollowing(config.mlflow, registry, found, rollouts, database, clock)
    return Mlflow(found, following, MlflowWebhooks(config.mlflow, following, clock))
