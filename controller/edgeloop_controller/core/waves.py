"""Waves: how much of the matching fleet may hold the version at each stage, and who goes first.

Invariants: bounds never shrink from wave to wave; a wave's bound is at least one device; the order
in which devices enter depends only on the rollout, the device and whether it is online.
"""

from collections.abc import Sequence

from edgeloop_controller.core.rollout_types import DeviceView, Wave


def parse_waves(text: str) -> tuple[Wave, ...]:
    """`"1,25%,100%"` -> waves, cumulative. Raises WaveError naming the wave and the mend."""
    raise NotImplementedError


def format_waves(waves: Sequence[Wave]) -> list[str]:
    """`["1", "25%", "100%"]`: the stored form; `parse_waves(",".join(...))` gives it back."""
    raise NotImplementedError


def bound(wave: Wave, matching: int) -> int:
    """How many of `matching` devices may be members at this wave: rounded up, at least 1."""
    raise NotImplementedError


def entry_order(rollout_id: int, devices: Sequence[DeviceView]) -> list[DeviceView]:
    """Online ones first, then by a stable hash of (rollout, device): no one is always canary."""
    raise NotImplementedError
