"""Which runners a slot wants, from its state and from how much of that the journal holds.

Invariants: a candidate is wanted, and gets the source, only as far as the journal holds this very
try; a step back (a rollback) and the champion never wait for the journal.
"""

from dataclasses import dataclass
from typing import Final

from edgeloop_agent.core.runners import Wanted
from edgeloop_agent.core.snapshot import SlotSnapshot
from edgeloop_protocol.lifecycle import SlotState

TRYING: Final = frozenset({SlotState.SELF_TEST, SlotState.ACTIVATING, SlotState.PROBATION})
SERVES: Final = frozenset({SlotState.ACTIVATING, SlotState.PROBATION})


@dataclass(slots=True)
class Wants:
    """`wanted`, found anew only when a state is another one: most events move none."""

    _of: tuple[SlotSnapshot, SlotSnapshot] | None = None
    _wanted: Wanted | None = None

    def of(self, durable: SlotSnapshot, journalled: SlotSnapshot) -> Wanted:
        of = self._of
        if self._wanted is None or of is None or of[0] is not durable or of[1] is not journalled:
            self._of, self._wanted = (durable, journalled), wanted(durable, journalled)
        return self._wanted


def wanted(durable: SlotSnapshot, journalled: SlotSnapshot) -> Wanted:
    """`durable`: the state as it is now; `journalled`: as a power cut would leave it."""
    candidate, states = durable.candidate, {durable.state, journalled.state}
    champion = durable.champion
    trying = states <= TRYING and _try_of(durable) == _try_of(journalled)
    return Wanted(
        champion=champion,
        candidate=candidate.offer if candidate is not None and trying else None,
        shadow=champion if candidate and candidate.probation.compare else None,
        candidate_serves=trying and states <= SERVES,
        champion_memory_bytes=durable.champion_memory_max_bytes,
        candidate_memory_bytes=candidate.memory_max_bytes if candidate is not None else 0,
    )


def _try_of(snapshot: SlotSnapshot) -> tuple[str, int] | None:
    candidate = snapshot.candidate
    return None if candidate is None else (candidate.offer.manifest_digest, candidate.attempts)
