"""Is it flat? By rules that are stated, over weights taken at equal moments of each swap.

The second half of the weights is judged: before, a process warms up. A size is flat when its
Theil-Sen slope (the median of the slopes between all pairs, so that one outlier decides nothing) is
at most so many kilobytes a hundred swaps. A number (descriptors, threads, files, runners) is flat
when it is the same every time. Logs, which grow until they are turned over, are within their bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES
from edgeloop_simulators.weighing import ProcessWeight, Stored

MEMORY_KB_PER_100_SWAPS: Final = 20.0
STORED_KB_PER_100_SWAPS: Final = 2.0
PER: Final = 100


@dataclass(frozen=True, slots=True)
class Weight:
    """After the swap of this number: the new version is committed and has answered."""

    swap: int
    answered: int
    supervisor: ProcessWeight
    steady: ProcessWeight
    """The runner that serves all along."""
    swapped: ProcessWeight
    """The runner of the newest version, at the same age each time."""
    runners: int
    stored: Stored


@dataclass(frozen=True, slots=True)
class Judgement:
    what: str
    first: float
    last: float
    unit: str
    found: str
    is_flat: bool


_SIZES: Final[tuple[tuple[str, str, Callable[[Weight], float]], ...]] = (
    ("supervisor, resident", "memory", lambda w: w.supervisor.memory.rss),
    ("supervisor, anonymous", "memory", lambda w: w.supervisor.memory.anonymous),
    ("steady runner, resident", "memory", lambda w: w.steady.memory.rss),
    ("steady runner, anonymous", "memory", lambda w: w.steady.memory.anonymous),
    ("each new runner, resident", "memory", lambda w: w.swapped.memory.rss),
    ("outbox", "stored", lambda w: w.stored.outbox / 1e3),
    ("models", "stored", lambda w: w.stored.models / 1e3),
    ("journal and the rest", "stored", lambda w: w.stored.rest / 1e3),
)
_NUMBERS: Final[tuple[tuple[str, Callable[[Weight], int]], ...]] = (
    ("supervisor, descriptors", lambda w: w.supervisor.descriptors),
    ("supervisor, threads", lambda w: w.supervisor.threads),
    ("steady runner, descriptors", lambda w: w.steady.descriptors),
    ("steady runner, threads", lambda w: w.steady.threads),
    ("each new runner, descriptors", lambda w: w.swapped.descriptors),
    ("each new runner, threads", lambda w: w.swapped.threads),
    ("runner processes", lambda w: w.runners),
    ("files in the state directory", lambda w: w.stored.files),
)


def judge(
    weights: Sequence[Weight],
    logs: int,
    memory_kb_per_100_swaps: float = MEMORY_KB_PER_100_SWAPS,
) -> list[Judgement]:
    """`logs`: how many bounded logs the agent keeps."""
    limits = {"memory": memory_kb_per_100_swaps, "stored": STORED_KB_PER_100_SWAPS}
    half = weights[len(weights) // 2 :]
    judged = []
    for what, kind, of in _SIZES:
        slope = PER * theil_sen([w.swap for w in half], [of(w) for w in half])
        found = f"{slope:+.1f} kB per {PER} swaps; at most {limits[kind]:g}"
        judged.append(
            Judgement(what, of(half[0]), of(half[-1]), "kB", found, slope <= limits[kind])
        )
    for what, number in _NUMBERS:
        seen = sorted({number(w) for w in half})
        found = "always the same" if len(seen) == 1 else f"from {seen[0]} to {seen[-1]}"
        judged.append(Judgement(what, number(half[0]), number(half[-1]), "", found, len(seen) == 1))
    bound_kb, most_kb = logs * RUNNER_LOG_MAX_BYTES / 1e3, max(w.stored.logs for w in weights) / 1e3
    ends = half[0].stored.logs / 1e3, half[-1].stored.logs / 1e3
    judged.append(Judgement("logs", *ends, "kB", f"at most {bound_kb:,.0f}", most_kb <= bound_kb))
    return judged


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median slope over all pairs with different x; 0 where there is none."""
    points = list(zip(x, y, strict=True))
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return median(slopes) if slopes else 0.0
