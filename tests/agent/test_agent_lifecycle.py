"""The transition table: each pair is decided, and the moves are these."""

import pytest

from edgeloop_agent.core.lifecycle import TABLE, Signal, after
from edgeloop_agent.errors import LifecycleError
from edgeloop_protocol.lifecycle import RESTING, SlotState

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
