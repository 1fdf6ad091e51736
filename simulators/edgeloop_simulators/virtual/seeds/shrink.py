"""From a failing world to one that a person can follow: fewer faults, steps and devices.

Delta debugging (Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input, IEEE TSE
2002): `fewest` is its ddmin. Luck comes from named streams, so what is taken away leaves the rest
as it was.

Invariants: what is left fails by the same law; taking any one fault more away makes it pass, if
PLAYS_MAX sufficed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from edgeloop_simulators.virtual.seeds.case import Case
from edgeloop_simulators.virtual.seeds.case_play import Played, play

PLAYS_MAX: Final = 150
"""Worlds played to shrink one."""

T = TypeVar("T")


def fewest(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A part of `items` that still fails and of which none can be left out; `items` do fail."""
    left, parts = tuple(items), 2
    if left and fails(()):
        return ()
    while len(left) > 1:
        size = -(-len(left) // parts)
        chunks = [left[start : start + size] for start in range(0, len(left), size)]
        rests = [
            tuple(item for other in chunks if other is not chunk for item in other)
            for chunk in chunks
        ]
        smaller = next((part for part in _candidates(chunks, rests) if fails(part)), None)
        if smaller is not None:
            parts = 2 if smaller in chunks else max(parts - 1, 2)
            left = smaller
        elif parts >= len(left):
            break
        else:
            parts = min(len(left), parts * 2)
    return left


def _candidates(chunks: list[tuple[T, ...]], rests: list[tuple[T, ...]]) -> list[tuple[T, ...]]:
    """With two parts the rest of the one is the other."""
    return chunks if len(chunks) <= 2 else [*chunks, *rests]


@dataclass(frozen=True)
class Shrunk:
    played: Played
    plays: int
    """How many worlds it took."""


def shrink(failing: Played, plays_max: int = PLAYS_MAX) -> Shrunk:
    """`failing` broke a law."""
    return _Shrinking(failing, plays_max).shrunk()


def story(shrunk: Shrunk) -> Iterator[str]:
    """What is left of a failing world, and how to see it."""
    played = shrunk.played
    case, spec = played.case, played.case.drawn().spec
    yield f"seed {case.seed} breaks {played.violations[0]}"
    yield (
        f"  with {len(case.faults)} faults, {len(spec.devices)} devices and {len(spec.script)} "
        f"steps left after {shrunk.plays} plays:"
    )
    yield from (f"    {fault}" for fault in case.faults)
    yield f"  edgeloop-sim replay {case.replay_arguments()}"
    yield ""


class _Shrinking:
    def __init__(self, failing: Played, plays_max: int) -> None:
        self._law = failing.law
        self._best = failing
        self._plays, self._plays_max = 0, plays_max

    def shrunk(self) -> Shrunk:
        fewest(self._best.case.faults, lambda faults: self._fails(faults=tuple(faults)))
        fewest(self._best.case.devices, lambda devices: self._fails(devices=tuple(devices)))
        fewest(self._best.case.steps, lambda steps: self._fails(steps=tuple(steps)))
        return Shrunk(self._best, self._plays)

    def _fails(self, **left: tuple[object, ...]) -> bool:
        """Also keeps the smallest that failed; a world without devices says nothing."""
        if self._plays >= self._plays_max or left.get("devices") == ():
            return False
        self._plays += 1
        case: Case = replace(self._best.case, **left)  # type: ignore[arg-type]
        played = play(case)
        if played.law != self._law:
            return False
        self._best = played
        return True
