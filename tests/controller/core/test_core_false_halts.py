"""The one table of false-halt parts: together never more than the stated rate."""

import itertools
from collections.abc import Mapping
from typing import get_args

import pytest

from edgeloop_controller.core.false_halts import GATES, GATES_WITH_SHADOW, VIEWS, nth, part
from edgeloop_controller.core.rollout_types import GateName, RolloutTerms
from edgeloop_controller.core.shadow_terms import ShadowTerms

PLAIN = RolloutTerms(false_halt_rate=0.01)
IN_SHADOW = PLAIN.model_copy(update={"shadow": ShadowTerms(devices=3)})


def test_every_gate_has_a_part_and_the_parts_sum_to_one() -> None:
    assert GATES_WITH_SHADOW.keys() == set(get_args(GateName))
    assert sum(GATES.values()) == pytest.approx(1.0)
    assert sum(GATES_WITH_SHADOW.values()) == pytest.approx(1.0)
    assert sum(VIEWS.values()) == pytest.approx(1.0)


def test_places_sum_to_at_most_one_however_many_come() -> None:
    assert sum(nth(place) for place in range(1, 10_000)) <= 1


@pytest.mark.parametrize(("terms", "gates"), [(PLAIN, GATES), (IN_SHADOW, GATES_WITH_SHADOW)])
def test_all_that_can_ever_be_tested_spends_at_most_the_rate(
    terms: RolloutTerms, gates: Mapping[GateName, float]
) -> None:
    many = range(1, 13)
    spent = sum(
        part(terms, gate, view, *places)
        for gate in gates
        for view in VIEWS
        for places in itertools.product(many, repeat=3)
    )
    assert 0.007 < spent <= 0.01
