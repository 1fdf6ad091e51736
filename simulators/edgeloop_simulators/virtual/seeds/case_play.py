"""One case played to its end: what came of it, small enough to send between processes.

Invariant: whatever goes wrong in the simulator itself is a failure of the case too, told under the
name SIMULATOR; a play never raises but for being interrupted.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edgeloop_simulators.virtual.kernel.seen import Observe
from edgeloop_simulators.virtual.laws.outcome import Outcome, Violation
from edgeloop_simulators.virtual.seeds.case import Case
from edgeloop_simulators.virtual.world.world import Until, World

SIMULATOR: Final = "SIMULATOR"
"""Stands in the place of a law: the virtual world itself raised."""


@dataclass(frozen=True)
class Played:
    case: Case
    trace_hash: str
    events: int
    virtual_s: float
    violations: tuple[Violation, ...]

    @property
    def law(self) -> str:
        """The law that was broken first; empty: none was."""
        return self.violations[0].invariant if self.violations else ""


def play(
    case: Case,
    observers: Sequence[Observe] = (),
    until: Until | None = None,
    inspect: Callable[[World], None] | None = None,
) -> Played:
    """Raises CaseError for a case that is none."""
    drawn = case.drawn()
    world = World(drawn.spec, drawn.faults, case.seed, observers)
    try:
        return _played(case, world.run(until, inspect))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{error!r}, in {where.name} ({where.filename}, line {where.lineno})"
        violation = Violation(SIMULATOR, world.loop.now_s, "world", detail)
        return Played(case, "", world.loop.events_run, world.loop.now_s, (violation,))


def _played(case: Case, outcome: Outcome) -> Played:
    return Played(case, outcome.trace_hash, outcome.events, outcome.virtual_s, outcome.violations)
