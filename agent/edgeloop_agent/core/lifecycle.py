"""The transition table of a version on a slot: (state, signal) -> state, every pair decided.

Invariants: this table is the only place where a state follows from another; a pair that is not a
move is an explicit rejection. ROLLED_BACK is reachable from every state, because a candidate can
fail before its manifest is even verified.
"""

from enum import Enum, auto
from typing import Final

from edgeloop_agent.errors import LifecycleError
from edgeloop_protocol.lifecycle import SlotState


class Signal(Enum):
    ADMITTED = auto()  # the manifest is verified and the inventory satisfies it
    FETCHING = auto()  # the artifact's download begins
    FETCHED = auto()  # size and digest verified, file and directory synced
    TRYING = auto()  # an attempt was counted: the candidate's runner starts
    PASSED = auto()  # the self-test's outputs are within tolerance
    SERVING = auto()  # the candidate's runner has the source
    PROVEN = auto()  # probation is over
    INTERRUPTED = auto()  # the agent restarted, or the runner died before it had the source
    FAILED = auto()  # a failure with a cause
    WITHDRAWN = auto()  # the controller no longer wants it


V, D, G, T = SlotState.VERIFIED, SlotState.DOWNLOADING, SlotState.STAGED, SlotState.SELF_TEST
A, P, C, R = (
    SlotState.ACTIVATING,
    SlotState.PROBATION,
    SlotState.COMMITTED,
    SlotState.ROLLED_BACK,
)
NO: Final = None  # rejected

# fmt: off
_ROWS: Final[dict[SlotState, tuple[SlotState | None, ...]]] = {
    #       ADMITTED FETCHING FETCHED TRYING PASSED SERVING PROVEN INTERRUPTED FAILED WITHDRAWN
    SlotState.IDLE: (V,  NO,     NO,     NO,    NO,    NO,     NO,    NO,         R,     R),
    V:              (NO, D,      NO,     NO,    NO,    NO,     NO,    NO,         R,     R),
    D:              (NO, NO,     G,      NO,    NO,    NO,     NO,    NO,         R,     R),
    G:              (NO, NO,     NO,     T,     NO,    NO,     NO,    NO,         R,     R),
    T:              (NO, NO,     NO,     NO,    A,     NO,     NO,    G,          R,     R),
    A:              (NO, NO,     NO,     NO,    NO,    P,      NO,    G,          R,     R),
    P:              (NO, NO,     NO,     NO,    NO,    NO,     C,     G,          R,     R),
    C:              (V,  NO,     NO,     NO,    NO,    NO,     NO,    NO,         R,     R),
    R:              (V,  NO,     NO,     NO,    NO,    NO,     NO,    NO,         R,     R),
}
# fmt: on

TABLE: Final[dict[tuple[SlotState, Signal], SlotState | None]] = {
    (state, signal): target
    for state, row in _ROWS.items()
    for signal, target in zip(Signal, row, strict=True)
}


def after(state: SlotState, signal: Signal) -> SlotState:
    """The state that follows; raises LifecycleError where the table rejects the pair."""
    target = TABLE[state, signal]
    if target is None:
        raise LifecycleError(f"{signal.name} is not possible in state {state}")
    return target


def transitions_max(attempts_max: int) -> int:
    """How many transitions one offer can lead to: three until it is staged, four a try (of which
    the last leads back), and one to its end. A step back must have been preceded by a try, and
    tries are counted; so no fault, however often it comes, keeps a slot busy for ever."""
    return 3 + 4 * attempts_max + 1
