"""`[mlflow]` of the controller's configuration: whose registry, and which aliases are followed.

Invariants: no secret stands in it, so that none can show up where a configuration is printed.
"""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from edgeloop_controller.core.mlflow_versions import ALIAS_PATTERN, MODEL_PATTERN, ModelUri
from edgeloop_controller.core.rollout_types import RolloutTerms
from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import Name

FOLLOWS_MAX: Final = 64


class FollowConfig(Config):
    """When the alias moves, its version is published, and with `rollout` rolled out."""

    model: str = Field(pattern=MODEL_PATTERN, max_length=256, description="its name in MLflow")
    alias: str = Field(pattern=ALIAS_PATTERN, max_length=255)
    name: Name | None = Field(default=None, description="of the model here; None: as in MLflow")
    rollout: bool = False
    slot: Name = "main"
    selector: str = Field(default="all", max_length=2000)
    waves: tuple[str, ...] = Field(default=("1", "5%", "25%", "100%"), max_length=100)
    terms: RolloutTerms = RolloutTerms()
    if_busy: Literal["queue", "preempt", "refuse"] = "queue"

    @property
    def uri(self) -> ModelUri:
        return ModelUri(self.model, alias=self.alias)


class MlflowConfig(Config):
    tracking_uri: str = Field(
        max_length=2048,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="without a user or a password: give them by username and secret_file",
    )
    username: str | None = None
    secret_file: Path | None = Field(
        default=None,
        description="one line: the password of `username`, or without one a bearer token. None: "
        "as MLflow's own clients, by MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN",
    )
    webhook_secret_file: Path | None = Field(
        default=None, description="a line a secret, any of them; None: no webhook is taken"
    )
    poll_s: float = Field(default=300.0, ge=1, description="how often a followed alias is asked")
    timeout_s: float = Field(
        default=60.0, gt=0, le=600, description="of all that is fetched for one version"
    )
    follow: dict[Name, FollowConfig] = Field(default_factory=dict, max_length=FOLLOWS_MAX)

    @model_validator(mode="after")
    def _username_has_a_password(self) -> Self:
        if self.username is not None and self.secret_file is None:
            raise ValueError("username needs its password: set secret_file to a file that holds it")
        return self

    @property
    def secret_files(self) -> tuple[Path, ...]:
        named = (self.secret_file, self.webhook_secret_file)
        return tuple(path for path in named if path is not None)
