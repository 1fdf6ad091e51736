"""The transition table as a page: what a reader sees is what the agent does.

    python -m edgeloop_agent.lifecycle_diagram docs/spec/lifecycle.md

Invariant: all of the table and nothing else; the same table gives the same page.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeloop_agent.core.lifecycle import (
    CHALLENGE_TABLE,
    TABLE,
    ChallengeSignal,
    Signal,
    transitions_max,
)
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.lifecycle import ChallengeState, SlotState

_ENDINGS: Final = (Signal.FAILED, Signal.WITHDRAWN)
"""Possible everywhere: they would be a third of the arrows, and hide the rest."""
_MEANS: Final[dict[Signal, str]] = {
    Signal.ADMITTED: "the manifest is verified, and the inventory satisfies it",
    Signal.FETCHING: "the artifact's download begins",
    Signal.FETCHED: "size and digest are verified, file and directory synced",
    Signal.TRYING: "an attempt was counted: the candidate's runner starts",
    Signal.PASSED: "the self-test's outputs are within tolerance",
    Signal.SERVING: "the candidate's runner has the source",
    Signal.PROVEN: "probation is over",
    Signal.INTERRUPTED: "the agent restarted, or the runner died before it had the source",
    Signal.FAILED: "a failure with a cause",
    Signal.WITHDRAWN: "the controller no longer wants it",
}

_CHALLENGE_MEANS: Final[dict[ChallengeSignal, str]] = {
    ChallengeSignal.ADMITTED: "the manifest is verified, and the inventory satisfies it",
    ChallengeSignal.FETCHED: "size and digest are verified, file and directory synced",
    ChallengeSignal.SHADOWING: "its runner passed the self-test and is fed by the champion's",
    ChallengeSignal.INTERRUPTED: "its runner ended, for whatever reason",
    ChallengeSignal.FAILED: "a failure with a cause",
}


def page() -> str:
    attempts_max = CoreSettings().attempts_max
    bound = transitions_max(attempts_max)
    return "\n".join(
        [
            "# The lifecycle of a version on a slot",
            "",
            "Made from the agent's transition table (`edgeloop_agent.core.lifecycle`) by `make "
            "schemas`; a test holds it to the table. From every state `FAILED` and `WITHDRAWN` "
            "lead to `rolled_back`; what is not listed is rejected.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {SlotState.IDLE}",
            *(f"    {state} --> {target}: {signal.name}" for state, signal, target in _moves()),
            "```",
            "",
            "| signal | when | moves |",
            "|---|---|---|",
            *_rows(),
            "",
            f"An offer leads to at most {bound} transitions with the default of {attempts_max} "
            f"attempts: three to be staged, four a try, and one to its end.",
            "",
            "## A challenger in shadow",
            "",
            "One that the controller takes back is forgotten, in whatever state it is.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {ChallengeState.WANTED}",
            *(f"    {at} --> {to}: {signal.name}" for at, signal, to in _challenge_moves()),
            "```",
            "",
            "| signal | when |",
            "|---|---|",
            *(f"| {signal.name} | {_CHALLENGE_MEANS[signal]} |" for signal in ChallengeSignal),
            "",
        ]
    )


def _moves() -> Iterator[tuple[SlotState, Signal, SlotState]]:
    for (state, signal), target in TABLE.items():
        if target is not None and signal not in _ENDINGS:
            yield state, signal, target


def _challenge_moves() -> Iterator[tuple[ChallengeState, ChallengeSignal, ChallengeState]]:
    for (state, signal), target in CHALLENGE_TABLE.items():
        if target is not None:
            yield state, signal, target


def _rows() -> Iterator[str]:
    for signal in Signal:
        if signal in _ENDINGS:
            moves = f"every state → {TABLE[SlotState.IDLE, signal]}"
        else:
            moves = ", ".join(f"{state} → {to}" for state, named, to in _moves() if named is signal)
        yield f"| {signal.name} | {_MEANS[signal]} | {moves} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
