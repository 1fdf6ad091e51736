"""The one table of false-halt parts: together never more than the stated rate."""

import itertools
from typing import get_args

import pytest

from edgeloop_controller.core.false_halts import GATES, VIEWS, nth, part
from edgeloop_controller.core.rollout_types import GateName


def test_every_gate_has_a_part_and_the_parts_sum_to_one() -> None:
    assert tuple(GATES) == get_args(GateName)
    assert sum(GATES.values()) == pytest.approx(1.0)
    assert sum(VIEWS.values()) == pytest.approx(1.0)


def test_places_sum_to_at_most_one_however_many_come() -> None:
    assert sum(nth(place) for place in range(1, 10_000)) <= 1


def test_all_that_can_ever_be_tested_spends_at_most_the_rate() -> None:
    many = range(1, 13)
    spent = sum(
        part(0.01, gate, view, *places)
        for gate in GATES
        for view in VIEWS
        for places in itertools.product(many, repeat=3)
    )
    assert 0.007 < spent <= 0.01
