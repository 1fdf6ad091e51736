"""The transition table: each pair is decided, and the moves are these."""

from pathlib import Path

import pytest

from edgeloop_agent.core.lifecycle import (
    CHALLENGE_TABLE,
    TABLE,
    ChallengeSignal,
    Signal,
    after,
    challenge_after,
    transitions_max,
)
from edgeloop_agent.errors import LifecycleError
from edgeloop_agent.lifecycle_diagram import page
from edgeloop_protocol.lifecycle import RESTING, ChallengeState, SlotState

MOVES = {
    ("idle", "ADMITTED"): "verified",
    ("committed", "ADMITTED"): "verified",
    ("rolled_back", "ADMITTED"): "verified",
    ("verified", "FETCHING"): "downloading",
    ("downloading", "FETCHED"): "staged",
    ("staged", "TRYING"): "self_test",
    ("self_test", "PASSED"): "activating",
    ("activating", "SERVING"): "probation",
    ("probation", "PROVEN"): "committed",
    ("self_test", "INTERRUPTED"): "staged",
    ("activating", "INTERRUPTED"): "staged",
    ("probation", "INTERRUPTED"): "staged",
}
FAILURES = {
    (s.value, signal): "rolled_back" for s in SlotState for signal in ("FAILED", "WITHDRAWN")
}


CHALLENGES = {
    ("wanted", "ADMITTED"): "downloading",
    ("downloading", "FETCHED"): "staged",
    ("staged", "SHADOWING"): "in_shadow",
    ("in_shadow", "INTERRUPTED"): "staged",
    **{(state, "FAILED"): "refused" for state in ("wanted", "downloading", "staged", "in_shadow")},
}


@pytest.mark.parametrize("state", ChallengeState)
@pytest.mark.parametrize("signal", ChallengeSignal)
def test_every_pair_of_a_challengers_is_a_move_or_an_explicit_rejection(state, signal):
    assert (state, signal) in CHALLENGE_TABLE
    expected = CHALLENGES.get((state.value, signal.name))
    if expected is None:
        with pytest.raises(LifecycleError, match=f"{signal.name} is not possible"):
            challenge_after(state, signal)
    else:
        assert challenge_after(state, signal) == expected


@pytest.mark.parametrize("state", SlotState)
@pytest.mark.parametrize("signal", Signal)
def test_every_pair_is_a_move_or_an_explicit_rejection(state, signal):
    assert (state, signal) in TABLE
    expected = (MOVES | FAILURES).get((state.value, signal.name))
    if expected is None:
        with pytest.raises(LifecycleError, match=f"{signal.name} is not possible in state {state}"):
            after(state, signal)
    else:
        assert after(state, signal) == expected


def test_every_state_can_be_left_for_rest():
    for state in SlotState:
        assert after(state, Signal.FAILED) in RESTING


@pytest.mark.parametrize("attempts_max", [1, 2, 3, 7])
def test_an_offer_leads_to_a_bounded_number_of_transitions(attempts_max):
    """The longest way through the table on which tries are counted."""

    def longest(state, attempts, is_first):
        if state in RESTING and not is_first:
            return 0
        ways = []
        for signal in Signal:
            target = TABLE[state, signal]
            tries = attempts + (signal is Signal.TRYING)
            if target is not None and tries <= attempts_max:
                ways.append(1 + longest(target, tries, False))
        return max(ways)

    for state in RESTING:
        assert longest(state, 0, True) == transitions_max(attempts_max)


def test_the_page_shows_the_table():
    """`make schemas` writes it."""
    written = Path(__file__).parents[2] / "docs" / "spec" / "lifecycle.md"
    assert written.read_text(encoding="utf-8") == page()
