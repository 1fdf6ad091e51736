"""Who may spend how much of a rollout's false-halt rate: the one place where alpha is split.

A test is named by its gate, the view of the fleet, the group within the view, and the old version
or the look that it is about. It may reject with chance at most

    alpha * GATES[gate] * VIEWS[view] * nth(group) * nth(old version)               paired gates
    alpha * GATES[gate] * VIEWS[view] * nth(group) * nth(wave) * nth(look)          control gates

Where the terms ask for a shadow phase, GATES_WITH_SHADOW stands in the place of GATES.

Proof that all together reject with chance at most alpha: GATES sums to 1, VIEWS sums to 1, and
nth(k) = 1/(k (k + 1)) = 1/k - 1/(k + 1) telescopes to at most 1 over any set of places k = 1, 2, …;
so the products sum to at most alpha over every test that there can ever be (the union bound needs
no independence). No part changes when another group, version, wave or look comes.

Invariants: a part depends on nothing but its place; the sums are checked by the tests.
"""

from collections.abc import Mapping
from math import prod
from typing import Final

from edgeloop_controller.core.rollout_types import GateName, RolloutTerms
from edgeloop_controller.core.strata import View

GATES: Final[Mapping[GateName, float]] = {
    "failures": 2 / 16,
    "disagreement": 4 / 16,
    "accuracy": 4 / 16,
    "crashes": 1 / 16,
    "errors": 1 / 16,
    "latency": 1 / 16,
    "memory": 1 / 16,
    "confidence": 1 / 16,
    "predictions": 1 / 16,
}
"""Of failures, what its tests of groups spend; its rule on the whole count spends nothing."""

SHADOW_GATES: Final[Mapping[GateName, float]] = {
    "shadow_failures": 0.0,
    "shadow_disagreement": 2 / 16,
    "shadow_errors": 1 / 16,
    "shadow_latency": 1 / 16,
}
"""Of a rollout that begins in shadow; `shadow_failures` is a rule on a count."""

_OF_WAVES: Final = 1 - sum(SHADOW_GATES.values())

GATES_WITH_SHADOW: Final[Mapping[GateName, float]] = {
    **SHADOW_GATES,
    **{gate: share * _OF_WAVES for gate, share in GATES.items()},
}

VIEWS: Final[Mapping[View, float]] = {"fleet": 1 / 2, "architecture": 1 / 4, "site": 1 / 4}


def nth(place: int) -> float:
    """The part of the `place`-th of a row whose length nobody knows; places count from 1."""
    return 1 / (place * (place + 1))


def part(terms: RolloutTerms, gate: GateName, view: View, *places: int) -> float:
    """What one test may spend of the rollout's false-halt rate."""
    gates = GATES if terms.shadow is None else GATES_WITH_SHADOW
    return terms.false_halt_rate * gates[gate] * VIEWS[view] * prod(nth(place) for place in places)
