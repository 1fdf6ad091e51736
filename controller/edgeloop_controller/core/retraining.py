"""When to retrain: pure decisions over a policy and what is known.

Invariants: at most one run of a policy is pending or running; a run that failed is not started
again before `cooldown_s`; a decision always says why.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from edgeloop_controller.core.rollout_types import RolloutTerms
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
    waves: tuple[str, ...] = ("1", "5%", "25%", "100%")
    terms: RolloutTerms = RolloutTerms()


class PolicyTerms(Config):
    """What starts training, what is run, and what becomes of the candidate."""

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
    rollout: RolloutPlan = RolloutPlan()

    @model_validator(mode="after")
    def _schedule_has_a_period(self) -> Self:
        if "schedule" in self.on and self.every_s is None:
            raise ValueError('on = ["schedule"] needs every_s')
        return self


class Policy(PolicyTerms):
    """A file `policies/<name>.toml`, or one that was given over the API."""

    name: str


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
    rollout_waits: str = ""
    """What the rollout of the last run's candidate waits for, in words."""


@dataclass(frozen=True)
class Start:
    trigger: Literal["drift", "schedule", "labels"]
    why: str


@dataclass(frozen=True)
class Wait:
    why: str


def decide(policy: Policy, view: PolicyView, now: float) -> Start | Wait:
    """Whether a run starts now: the first trigger of `policy.on` that says so.

    A world_changed alarm that a run has already answered starts another only when as many new
    labels have come since that run.
    """
    if view.running:
        waits = f"the rollout of its candidate waits: {view.rollout_waits}"
        return Wait(waits if view.rollout_waits else "a run is under way")
    if view.devices_on_champion == 0:
        return Wait(f"no device runs {policy.model} on slot {policy.slot}")
    if view.last_ended_at is not None and now < view.last_ended_at + policy.cooldown_s:
        return Wait(f"the last run ended less than {policy.cooldown_s:g} s ago")
    reasons = []
    for trigger in policy.on:
        decision = _TRIGGERS[trigger](policy, view, now)
        if isinstance(decision, Start):
            return decision
        reasons.append(decision.why)
    return Wait("; ".join(reasons) or "the policy names no trigger")


def _on_drift(policy: Policy, view: PolicyView, now: float) -> Start | Wait:  # noqa: ARG001
    alarm = view.world_changed_at
    if alarm is None:
        return Wait("no world_changed alarm is open")
    answered = view.last_ended_at is not None and view.last_ended_at >= alarm
    labels = view.labels_since_last_run if answered else view.labels_since_alarm
    since = "the last run" if answered else "the alarm"
    if labels < policy.min_labels:
        return Wait(f"the world changed; {labels} of {policy.min_labels} labels since {since}")
    return Start("drift", f"the world changed, and {labels} labels came since {since}")


def _on_schedule(policy: Policy, view: PolicyView, now: float) -> Start | Wait:
    if policy.every_s is None:
        return Wait("every_s is not set")
    if view.last_ended_at is not None and now < view.last_ended_at + policy.every_s:
        return Wait(f"the last run ended less than {policy.every_s:g} s ago")
    if view.labels_since_last_run < policy.min_labels:
        return Wait(f"due, with {view.labels_since_last_run} of {policy.min_labels} new labels")
    return Start("schedule", f"due every {policy.every_s:g} s")


def _on_labels(policy: Policy, view: PolicyView, now: float) -> Start | Wait:  # noqa: ARG001
    new, wanted = view.labels_since_last_run, max(1, policy.min_labels)
    if new < wanted:
        return Wait(f"{new} of {wanted} labels since the last run")
    return Start("labels", f"{new} labels came since the last run")


_TRIGGERS: Final = {"drift": _on_drift, "schedule": _on_schedule, "labels": _on_labels}
