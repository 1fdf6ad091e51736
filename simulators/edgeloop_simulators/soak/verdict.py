"""Is it flat? By rules that are stated, over weights taken at equal moments of each swap.

The second half of the weights is judged: before, a process warms up. A size is flat when its
Theil-Sen slope (the median of the slopes between all pairs, so that one outlier decides nothing) is
at most so many kilobytes a hundred swaps. A number (descriptors, threads, files, runners) is flat
when the median of its last third is not above that of its first: a look may fall into the moment in
which a file is open. Logs, the agent's and SQLite's, grow until they are turned over: to a bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from edgeloop_protocol.limits import RUNNER_LOG_MAX_BYTES
from edgeloop_simulators.weighing import ProcessWeight, Stored

PER: Final = 100
WAL_KB_MAX: Final = 4_500.0
"""SQLite turns it over at 1,000 pages of 4 kB; a transaction may go beyond."""


@dataclass(frozen=True, slots=True)
class Limits:
    """In kB per 100 swaps. The defaults are for a soak of a thousand; a short one warms up."""

    memory: float = 20.0
    stored: float = 2.0


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


def judge(weights: Sequence[Weight], logs: int, limits: Limits | None = None) -> list[Judgement]:
    """`logs`: how many bounded logs the agent keeps."""
    limits = limits or Limits()
    half = weights[len(weights) // 2 :]
    judged = []
    for what, kind, of in _SIZES:
        most = getattr(limits, kind)
        slope = PER * theil_sen([w.swap for w in half], [of(w) for w in half])
        found = f"{slope:+.1f} kB per {PER} swaps; at most {most:g}"
        judged.append(Judgement(what, of(half[0]), of(half[-1]), "kB", found, slope <= most))
    third = max(1, len(half) // 3)
    for what, number in _NUMBERS:
        seen = [number(w) for w in half]
        first, last = median(seen[:third]), median(seen[-third:])
        found = "always the same" if len(set(seen)) == 1 else f"from {min(seen)} to {max(seen)}"
        judged.append(Judgement(what, first, last, "", found, last <= first))
    for what, most, of in (
        ("outbox's log", WAL_KB_MAX, lambda w: w.stored.wal / 1e3),
        ("agent's logs", logs * RUNNER_LOG_MAX_BYTES / 1e3, lambda w: w.stored.logs / 1e3),
    ):
        within = max(map(of, weights)) <= most
        found = f"at most {most:,.0f}"
        judged.append(Judgement(what, of(half[0]), of(half[-1]), "kB", found, within))
    return judged


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median slope over all pairs with different x; 0 where there is none."""
    points = list(zip(x, y, strict=True))
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return median(slopes) if slopes else 0.0
