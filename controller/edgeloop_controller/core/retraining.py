"""When to retrain: pure decisions over a policy and what is known.

Invariants: at most one run of a policy is pending or running; a run that failed is not started
again before `cooldown_s`; a decision always says why.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from edgeloop_protocol.config import Config


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"


class Acceptance(Config):
    """What a candidate must show on the held-back labelled samples to be published."""

    held_back_fraction: float = Field(default=0.3, gt=0, lt=1)
    min_examples: int = Field(default=30, gt=0)
    min_accuracy_gain: float = Field(default=0.0, ge=-1, le=1)


class RolloutPlan(Config):
    """The rollout that an accepted candidate starts; no `waves`: publish only."""

    selector: str = "all"
    waves: tuple[str, ...] = ("1", "25%", "100%")
    soak_s: float | None = None


class Policy(Config):
    """A file `policies/<name>.toml`."""

    name: str
    model: str
    slot: str = "main"
    on: tuple[Literal["drift", "schedule", "labels"], ...] = ("drift",)
    script: str = Field(description="run as `python <script> --input DIR/input.json --output DIR`")
    inputs: dict[str, str] = Field(default_factory=dict, description="name to file: passed along")
    min_labels: int = Field(default=100, ge=0, description="labelled samples since the trigger")
    every_s: float | None = Field(default=None, gt=0)
    cooldown_s: float = Field(default=600, ge=0)
    timeout_s: float = Field(default=600, gt=0)
    memory_max_bytes: int = Field(default=4 * 1024**3, gt=0)
    acceptance: Acceptance = Acceptance()
    rollout: RolloutPlan | None = RolloutPlan()


@dataclass(frozen=True)
class PolicyView:
    """What is known when a policy is looked at; times are the controller's, in seconds."""

    running: bool
    last_ended_at: float | None
    world_changed_at: float | None
    """When the open `world_changed` alarm on the model's champion was raised; None: no alarm."""
    labels_since_alarm: int
    labels_since_last_run: int
    devices_on_champion: int


@dataclass(frozen=True)
class Start:
    trigger: Literal["drift", "schedule", "labels"]
    why: str


@dataclass(frozen=True)
class Wait:
    why: str


def decide(policy: Policy, view: PolicyView, now: float) -> Start | Wait:
    """Whether a run starts now."""
    raise NotImplementedError
