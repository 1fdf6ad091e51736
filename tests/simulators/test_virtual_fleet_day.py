"""A day of a fleet, small: the same story and the same trace, in one process and in many."""

from collections import Counter

import pytest

from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.laws.outcome import Outcome
from edgeloop_simulators.virtual.parts.fleet_day import DRIFT_AT_S, fleet_day
from edgeloop_simulators.virtual.parts.world_in_parts import WorldInParts

DEVICES = 200
TICK_S = 600.0
SEED = 7


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    return []


@pytest.fixture(scope="module")
def outcome(seen: list[Seen]) -> Outcome:
    return WorldInParts(fleet_day(DEVICES, TICK_S), SEED, (seen.append,)).run()


def test_no_law_is_broken(outcome: Outcome) -> None:
    assert outcome.violations == ()


def test_the_retrained_version_is_everywhere_by_evening(outcome: Outcome) -> None:
    assert Counter(outcome.champions.values()) == {"condition@2": DEVICES}
    everywhere = f"{DEVICES} of {DEVICES} matching devices run condition"
    assert outcome.rollouts == {
        1: f"condition@1 done: {everywhere}@1",
        2: f"condition@2 done: {everywhere}@2",
    }


def test_the_drift_is_noticed_after_it_began_and_the_run_comes_of_it(
    outcome: Outcome, seen: list[Seen]
) -> None:
    at_s = {one.what: one.at_s for one in reversed(seen)}
    assert DRIFT_AT_S < at_s["event.drift.raised"] < at_s["event.training.requested"]
    raised = next(one for one in seen if one.what == "event.drift.raised")
    assert raised.data["cause"] == "world_changed"


def test_all_telemetry_is_stored_once(outcome: Outcome) -> None:
    assert outcome.telemetry_stored > 10 * DEVICES
    assert (outcome.telemetry_lost, outcome.telemetry_duplicated) == (0, 0)


def test_all_parts_in_one_process_give_the_same_trace(outcome: Outcome) -> None:
    again = WorldInParts(fleet_day(DEVICES, TICK_S), SEED, processes=False).run()
    assert again.trace_hash == outcome.trace_hash
