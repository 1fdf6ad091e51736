"""What a version must show in shadow before a rollout's first wave, as people write it (ADR 0028).

Invariants: what is written wrong is refused; the bound of disagreement is the rollout's own.
"""

from typing import Final

from pydantic import ConfigDict, Field

from edgeloop_protocol.config import Config
from edgeloop_protocol.messages import ShadowBudget

SHADOW_DEVICES_MAX: Final = 1000
"""More say little more, and each is looked at in every turn."""


class ShadowBudgetTerms(ShadowBudget):
    """As people write it: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ShadowTerms(Config):
    """The version runs as a challenger beside the champions of `devices` devices, until each has
    compared `min_compared` examples and `soak_s` has passed since the first was given it. After
    `deadline_s` without that, the rollout waits for a person."""

    devices: int = Field(ge=1, le=SHADOW_DEVICES_MAX)
    min_compared: int = Field(default=100, ge=1, description="examples of each device")
    soak_s: float = Field(default=60.0, ge=0)
    deadline_s: float = Field(default=3600.0, gt=0)
    budget: ShadowBudgetTerms = ShadowBudgetTerms()
    max_refused_fraction: float = Field(
        default=0.05, ge=0, le=1, description="of the devices; rounded down"
    )
    max_error_rate: float = Field(
        default=0.01, ge=0, le=1, description="of examples, without a finite answer"
    )
    max_latency_ratio: float = Field(
        default=3.0, ge=1, description="of p95, in most windows; it runs at the lowest priority"
    )
