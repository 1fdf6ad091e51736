"""The transition tables of the versions on a slot: (state, signal) -> state, every pair decided.

Invariants: these tables are the only place where a state follows from another; a pair that is not a
move is an explicit rejection. ROLLED_BACK is reachable from every state, because a candidate can
fail before its manifest is even verified; a challenger can be refused in every state likewise.
"""

from enum import Enum, auto
from typing import Final

from edgeloop_agent.errors import LifecycleError
from edgeloop_protocol.lifecycle import ChallengeState, SlotState


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


class ChallengeSignal(Enum):
    """Of a challenger; one that is taken back is forgotten, in whatever state it is."""

    ADMITTED = auto()  # the manifest is verified and the inventory satisfies it
    FETCHED = auto()  # size and digest verified, file and directory synced
    SHADOWING = auto()  # its runner passed the self-test and is fed
    INTERRUPTED = auto()  # its runner ended, for whatever reason
    FAILED = auto()  # a failure with a cause


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

W, S = ChallengeState.WANTED, ChallengeState.STAGED
L, I, F = ChallengeState.DOWNLOADING, ChallengeState.IN_SHADOW, ChallengeState.REFUSED  # noqa: E741

# fmt: off
_CHALLENGE_ROWS: Final[dict[ChallengeState, tuple[ChallengeState | None, ...]]] = {
    #   ADMITTED FETCHED SHADOWING INTERRUPTED FAILED
    W: (L,       NO,     NO,       NO,         F),
    L: (NO,      S,      NO,       NO,         F),
    S: (NO,      NO,     I,        NO,         F),
    I: (NO,      NO,     NO,       S,          F),
    F: (NO,      NO,     NO,       NO,         NO),
}
# fmt: on

CHALLENGE_TABLE: Final[dict[tuple[ChallengeState, ChallengeSignal], ChallengeState | None]] = {
    (state, signal): target
    for state, row in _CHALLENGE_ROWS.items()
    for signal, target in zip(ChallengeSignal, row, strict=True)
}


def after(state: SlotState, signal: Signal) -> SlotState:
    """The state that follows; raises LifecycleError where the table rejects the pair."""
    target = TABLE[state, signal]
    if target is None:
        raise LifecycleError(f"{signal.name} is not possible in state {state}")
    return target


def challenge_after(state: ChallengeState, signal: ChallengeSignal) -> ChallengeState:
    """The state that follows; raises LifecycleError where the table rejects the pair."""
    target = CHALLENGE_TABLE[state, signal]
    if target is None:
        raise LifecycleError(f"{signal.name} is not possible for a challenger that is {state}")
    return target


def transitions_max(attempts_max: int) -> int:
    """How many transitions one offer can lead to: three until it is staged, four a try (of which
    the last leads back), and one to its end. A step back must have been preceded by a try, and
    tries are counted; so no fault, however often it comes, keeps a slot busy for ever."""
    return 3 + 4 * attempts_max + 1
