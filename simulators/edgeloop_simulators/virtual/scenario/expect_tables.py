"""Tables of a scenario file for what is expected of a run; `run.expectations` holds them against
what came.
"""

from pydantic import Field, NonNegativeInt

from edgeloop_controller.core.drift import Cause, Scope
from edgeloop_controller.core.rollout import RolloutStatus
from edgeloop_protocol.config import Config
from edgeloop_simulators.virtual.scenario.values import (
    EVERY_DEVICE,
    Duration,
    Share,
    Size,
    VersionName,
)


class ExpectRollout(Config):
    """Of the last rollout of `model`. Shares are of the devices that its selector matches."""

    model: VersionName
    status: RolloutStatus | None = None
    verdict_says: str | None = Field(default=None, description="a part of the verdict")
    exposed_share_max: Share | None = Field(default=None, description="that ever ran it")
    exposed_devices_max: NonNegativeInt | None = None
    rolled_back_devices: NonNegativeInt | None = None
    rolled_back_devices_min: NonNegativeInt | None = None
    time_to_95_percent_max: Duration | None = None
    ends_within: Duration | None = None


class ExpectChampion(Config):
    """What a share of the target's devices run at the end."""

    model: VersionName
    target: str = EVERY_DEVICE
    share_min: Share = 1.0


class ExpectDrift(Config):
    """One alarm at least of this kind, raised between `after` and `before`."""

    cause: Cause
    scope: Scope | None = None
    key: str | None = Field(default=None, description="`*`, `label=value` or a device")
    sensor: str | None = None
    after: Duration = 0.0
    before: Duration | None = None


class ExpectAccuracy(Config):
    """The share of right answers of the target's devices, of those given in [after, before)."""

    target: str = EVERY_DEVICE
    after: Duration = 0.0
    before: Duration | None = None
    min: Share | None = None
    max: Share | None = None


class ExpectTable(Config):
    """That every invariant holds is always expected; the rest where it is given."""

    converged: bool | None = True
    wedged_devices_max: NonNegativeInt | None = 0
    telemetry_lost_max: NonNegativeInt | None = 0
    telemetry_duplicated_max: NonNegativeInt | None = 0
    false_rollbacks_max: NonNegativeInt | None = None
    drift_alarms_max: NonNegativeInt | None = None
    bytes_up_per_device_day_max: Size | None = None
    rollouts: tuple[ExpectRollout, ...] = ()
    champions: tuple[ExpectChampion, ...] = ()
    drift: tuple[ExpectDrift, ...] = ()
    accuracy: tuple[ExpectAccuracy, ...] = ()
