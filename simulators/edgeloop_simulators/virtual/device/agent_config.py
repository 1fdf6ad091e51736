"""What an agent in the virtual world is configured with.

Invariant: all that devices of like labels share is one and the same object.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from edgeloop_agent.config import (
    AgentConfig,
    LimitsConfig,
    ReplaySource,
    SlotConfig,
    TelemetryConfig,
    TrustConfig,
)
from edgeloop_protocol.topics import check_device_id
from edgeloop_simulators.virtual.spec.world import AgentTiming, DeviceSpec

CONFIGS_KEPT_MAX: Final = 1024


def config_of(spec: DeviceSpec, timing: AgentTiming, slots: tuple[str, ...]) -> AgentConfig:
    labels = (("site", spec.site), *spec.labels.items())
    shared = _shared_config(labels, timing, slots)
    return shared.model_copy(update={"device_id": check_device_id(spec.id)})


@lru_cache(maxsize=CONFIGS_KEPT_MAX)
def _shared_config(
    labels: tuple[tuple[str, str], ...], timing: AgentTiming, slots: tuple[str, ...]
) -> AgentConfig:
    slot = SlotConfig(source=ReplaySource(path=Path("/virtual/source.csv")))
    return AgentConfig(
        device_id="any",
        state_dir=Path("/virtual/state"),
        controller_url="http://controller",
        trust=TrustConfig(unsigned=True),
        plain=True,
        labels=dict(labels),
        slots=dict.fromkeys(slots, slot),
        telemetry=TelemetryConfig(
            window_s=timing.window_s, outbox_max_bytes=timing.outbox_max_bytes
        ),
        limits=LimitsConfig(
            heartbeat_timeout_s=timing.heartbeat_timeout_s,
            download_bytes_per_s_max=timing.download_bytes_per_s_max,
        ),
    )
