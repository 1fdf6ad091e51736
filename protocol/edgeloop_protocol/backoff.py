"""Backoff with full jitter: the wait before try `attempt`, spread so that a fleet does not storm.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (the "full jitter" variant,
with a floor). Pure: the caller brings the random number.
"""

from typing import Final

from edgeloop_protocol.limits import BACKOFF_S_MAX, BACKOFF_S_MIN

_DOUBLINGS_MAX: Final = 16  # 2^16 times any floor is above any ceiling in use


def backoff_s(
    attempt: int, uniform: float, floor_s: float = BACKOFF_S_MIN, ceiling_s: float = BACKOFF_S_MAX
) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (from 1); `uniform` is in [0, 1)."""
    reach_s = min(ceiling_s, floor_s * float(2 ** min(max(attempt, 1), _DOUBLINGS_MAX)))
    return floor_s + uniform * max(0.0, reach_s - floor_s)
