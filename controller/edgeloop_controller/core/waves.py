"""Waves: how much of the matching fleet may hold the version at each stage, and who goes first.

Invariants: bounds never shrink from wave to wave; a wave's bound is at least one device; the order
in which devices enter depends only on the rollout, on which devices there are in each stratum, and
on whether they are online.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Final

from edgeloop_controller.core.rollout_types import DeviceView, Wave
from edgeloop_controller.core.schedule_terms import WAVES_MAX
from edgeloop_controller.core.strata import SITE_LABEL, Stratum, stratum_of
from edgeloop_controller.errors import WaveError

_WAVE: Final = re.compile(r"(?P<count>[0-9]{1,9})|(?P<percent>[0-9]{1,3}(\.[0-9]{1,4})?)%")
LOOKS_MAX: Final = 24
"""Looks at one wave; with a soak of a second they reach over three months."""
LOOK_MIN_S: Final = 1.0
"""A soak below this counts as this for the looks."""

_HINT: Final = "write cumulative sizes, such as 1,25%,100%"


def parse_waves(text: str) -> tuple[Wave, ...]:
    """`"1,25%,100%"` -> waves, cumulative. Raises WaveError naming the wave and the mend.

    Counts stand before percentages, so that bounds never shrink whatever the size of the fleet.
    """
    written = [part.strip() for part in text.split(",")]
    if len(written) > WAVES_MAX:
        raise WaveError(f"{len(written)} waves; at most {WAVES_MAX} are possible", _HINT)
    waves = tuple(_wave(part, number) for number, part in enumerate(written, start=1))
    for number in range(1, len(waves)):
        _check_grows(waves[number - 1], waves[number], number + 1)
    return waves


def format_waves(waves: Sequence[Wave]) -> list[str]:
    """`["1", "25%", "100%"]`: the stored form; `parse_waves(",".join(...))` gives it back."""
    return [str(wave.count) if wave.count is not None else f"{wave.percent:g}%" for wave in waves]


def bound(wave: Wave, matching: int) -> int:
    """How many of `matching` devices may be members at this wave: rounded up, at least 1."""
    if wave.count is not None:
        return max(1, wave.count)
    # Rounding first: 7 % of 100 is 7.000000000000001 in floating point and must not become 8.
    return max(1, math.ceil(round((wave.percent or 0) * matching / 100, 6)))


def look_taken_at(wave_started_at: float, soak_s: float, number: int) -> float:
    """When the `number`-th look (from 1) at the control group is taken: after a soak, and each time
    that the wave has lasted twice as long, so that few looks cover hours."""
    exponent: int = min(number, LOOKS_MAX + 1) - 1
    return wave_started_at + float(max(soak_s, LOOK_MIN_S) * 2**exponent)


def look_number(wave_started_at: float, soak_s: float, now: float) -> int:
    """The last look that is due by now; 0: none yet."""
    number = 0
    while number < LOOKS_MAX and look_taken_at(wave_started_at, soak_s, number + 1) <= now:
        number += 1
    return number


def entry_order(
    rollout_id: int, devices: Sequence[DeviceView], site_label: str = SITE_LABEL
) -> list[DeviceView]:
    """Online ones first; of them the first of each stratum, so that each is seen as early as
    possible, then all strata in proportion to their sizes.

    Within a stratum the order is a stable hash of (rollout, device): a lot, so that no one is
    always canary, and that those left behind can be compared with those that went.
    """
    strata: dict[tuple[bool, Stratum], list[tuple[bytes, DeviceView]]] = {}
    for device in devices:
        stratum = (not device.online, stratum_of(device, site_label))
        drawn = lot_of(rollout_id, device.id)
        strata.setdefault(stratum, []).append((drawn, device))
    placed = []
    for (offline, _), drawn_devices in strata.items():
        drawn_devices.sort(key=lambda one: one[0])
        for place, (drawn, device) in enumerate(drawn_devices):
            share = place / len(drawn_devices)
            placed.append(((offline, place > 0, share, drawn), device))
    placed.sort(key=lambda one: one[0])
    return [device for _, device in placed]


def lot_of(rollout_id: int, device_id: str) -> bytes:
    """The lot that a device draws in a rollout; the least go first."""
    return hashlib.sha256(f"{rollout_id}/{device_id}".encode()).digest()


def _wave(written: str, number: int) -> Wave:
    match = _WAVE.fullmatch(written)
    if match is None:
        raise WaveError(f"wave {number}: {written!r} is neither a count nor a percentage", _HINT)
    if match["count"] is not None:
        count = int(match["count"])
        if count == 0:
            raise WaveError(f"wave {number}: a wave has at least 1 device", _HINT)
        return Wave(count=count)
    percent = float(match["percent"])
    if not 0 < percent <= 100:
        raise WaveError(f"wave {number}: {written} is not above 0% and at most 100%", _HINT)
    return Wave(percent=percent)


def _check_grows(before: Wave, after: Wave, number: int) -> None:
    if before.percent is not None and after.count is not None:
        raise WaveError(f"wave {number}: a count cannot follow a percentage", _HINT)
    shrinks = (
        before.count > after.count
        if before.count is not None and after.count is not None
        else before.percent is not None
        and after.percent is not None
        and before.percent > after.percent
    )
    if shrinks:
        raise WaveError(
            f"wave {number} is smaller than the one before: sizes are cumulative", _HINT
        )
