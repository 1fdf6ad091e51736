"""What each device did in a time, and how that changed: arrays over devices.

Invariants: what is not known is NaN, never zero; a device that answered fewer than EXAMPLES_MIN
examples in either time is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Measure = Literal["crashes", "errors", "latency", "memory", "confidence", "predictions"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

EXAMPLES_MIN: Final = 20
"""Fewer examples in a time say nothing of a device."""

COLUMNS: Final = (
    *("examples", "failed", "crashes"),
    *("log_latency", "latency_weight", "log_memory", "memory_weight"),
    *("confidence", "confidence_weight"),
)
"""Of a row of sums; log_latency, log_memory and confidence are sums weighted by examples. The
counts of the answers follow."""

AT: Final[Mapping[str, int]] = {name: column for column, name in enumerate(COLUMNS)}


@dataclass(frozen=True)
class Changes:
    """By measure, over devices: positive is worse.

    crashes: how many since the wave began (a time as long for all); errors: rise of the share of
    examples with no finite answer; latency, memory: log of the ratio; confidence: fall of the mean;
    predictions: total variation between the mixes.
    """

    by_measure: Mapping[Measure, Floats]
    judged: NDArray[np.bool_]
    """Devices of which enough is known of both times."""
    answered: Floats
    """Examples since the wave began, answered or not."""


def changes(before: Floats, after: Floats) -> Changes:
    """Both: (devices, len(COLUMNS) + labels), as `COLUMNS` says."""
    answered = _tried(after)
    enough = np.minimum(_tried(before), answered) >= EXAMPLES_MIN
    with np.errstate(divide="ignore", invalid="ignore"):
        found: dict[Measure, Floats] = {
            "crashes": after[:, AT["crashes"]],
            "errors": _share(after) - _share(before),
            "latency": _mean(after, "log_latency", "latency_weight")
            - _mean(before, "log_latency", "latency_weight"),
            "memory": _mean(after, "log_memory", "memory_weight")
            - _mean(before, "log_memory", "memory_weight"),
            "confidence": _mean(before, "confidence", "confidence_weight")
            - _mean(after, "confidence", "confidence_weight"),
            "predictions": np.abs(_mix(after) - _mix(before)).sum(axis=1) / 2,
        }
    known = {name: np.where(enough, values, np.nan) for name, values in found.items()}
    return Changes(known, enough, answered)


def _tried(sums: Floats) -> Floats:
    tried: Floats = sums[:, AT["examples"]] + sums[:, AT["failed"]]
    return tried


def _share(sums: Floats) -> Floats:
    share: Floats = sums[:, AT["failed"]] / _tried(sums)
    return share


def _mean(sums: Floats, total: str, weight: str) -> Floats:
    mean: Floats = sums[:, AT[total]] / sums[:, AT[weight]]
    return mean


def _mix(sums: Floats) -> Floats:
    answers = sums[:, len(COLUMNS) :]
    mix: Floats = answers / answers.sum(axis=1, keepdims=True)
    return mix
